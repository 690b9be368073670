'use strict';
const get = id => document.getElementById(id);
const MAPS = 'maps=photo,heat';
let newest = 0, stream = null;

function text(value, digits) {
  return value === null || value === undefined ? '–' : Number(value).toPrecision(digits);
}

function fact(list, name, value) {
  const term = document.createElement('dt'), what = document.createElement('dd');
  term.textContent = name; what.textContent = value;
  list.append(term, what);
}

function show(part) {
  const verdict = get('verdict');
  verdict.dataset.decision = part.decision;
  verdict.textContent = {good: 'Good', defective: 'Defective', unreadable: 'Cannot be read'}[part.decision];
  get('name').textContent = `Part ${part.part}${part.path ? ': ' + part.path : ''}`;
  const pictures = part.pictures;
  get('view').hidden = get('slide').hidden = !pictures;
  if (pictures) {
    get('photo').src = pictures.photo;
    get('photo').alt = `The photo of part ${part.part}`;
    get('heat').hidden = !pictures.heat;
    if (pictures.heat) get('heat').src = pictures.heat;
    const region = part.region, box = get('box').style;
    get('box').dataset.there = region ? 'yes' : '';
    if (region) {
      box.left = 100 * region.left / part.width + '%'; box.width = 100 * region.width / part.width + '%';
      box.top = 100 * region.top / part.height + '%'; box.height = 100 * region.height / part.height + '%';
    }
  }
  const facts = get('facts');
  facts.replaceChildren();
  if (part.reason) fact(facts, 'Note', part.reason);
  if (part.score !== null) {
    fact(facts, 'Score', `${text(part.score, 4)} (defective above ${text(part.threshold, 4)})`);
    fact(facts, 'p-value', `${text(part.p_value, 2)}: so probable is a score as high of a good part`);
    const region = part.region;
    fact(facts, 'Region', region
      ? `${region.width} x ${region.height} px at ${region.left}, ${region.top}; ${region.area} px marked`
      : 'none is marked');
    if (part.expected_false_marks !== null) {
      fact(facts, 'By chance', `${text(part.expected_false_marks, 2)} such regions in a good photo`);
    }
  }
  shade();
  get('result').hidden = false;
}

function shade() {
  get('heat').style.opacity = get('opacity').value / 100;
  get('box').hidden = !(get('marks').checked && get('box').dataset.there);
}

async function ask(address, options) {
  let answer = await fetch(address, options);
  for (let tries = 0; answer.status === 503 && tries < 20; tries++) {
    await new Promise(done => setTimeout(done, 1000 * (answer.headers.get('Retry-After') || 1)));
    answer = await fetch(address, options);
  }
  return answer;
}

async function score(files) {
  let done = 0;
  for (const file of files) {
    get('busy').textContent = `Scoring ${++done} of ${files.length}…`;
    try {
      const name = encodeURIComponent(file.name || 'camera');
      const answer = await ask(`score?${MAPS}&name=${name}`,
        {method: 'POST', body: file, headers: {'Content-Type': 'application/octet-stream'}});
      const part = await answer.json();
      if (part.decision) show(part);
      else { get('busy').textContent = `${file.name}: ${part.detail}`; return; }
    } catch (error) {
      get('busy').textContent = `${file.name}: the service does not answer.`;
      return;
    }
  }
  get('busy').textContent = files.length > 1 ? `${files.length} photos scored.` : '';
  await refresh();
}

function lamp(drift) {
  get('lamp').dataset.light = drift.light;
  get('lampword').textContent = {green: 'As at calibration.', amber: 'Look.', red: 'Changed.'}[drift.light];
  const words = drift.sentences.join(' ');
  if (get('drift').textContent !== words) get('drift').textContent = words;
}

function add(part) {
  const item = document.createElement('li'), button = document.createElement('button');
  button.type = 'button';
  button.dataset.decision = part.decision;
  button.dataset.part = part.part;
  if (part.thumbnail) {
    const image = document.createElement('img');
    image.src = part.thumbnail; image.alt = '';
    button.append(image);
  }
  button.append(`${part.part} ${part.decision}`);
  button.addEventListener('click', async () => {
    const answer = await fetch(`recent/${part.part}?${MAPS}`);
    const whole = await answer.json();
    if (answer.ok) { show(whole); get('result').focus(); }
    else get('busy').textContent = whole.detail;
  });
  item.append(button);
  get('strip').prepend(item);
}

async function refresh() {
  try {
    const answer = await (await fetch(`recent?after=${newest}`)).json();
    for (const part of answer.parts) {
      if (part.part > newest) { newest = part.part; add(part); }
    }
    while (get('strip').children.length > 50) get('strip').lastChild.remove();
    lamp(answer.drift);
  } catch (error) {
    get('lamp').dataset.light = '';
    get('lampword').textContent = 'No answer.';
    get('drift').textContent = 'The service does not answer.';
  }
}

function chosen(event) {
  score([...event.target.files]);
  event.target.value = '';
}

async function start() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
  } catch (error) {
    get('busy').textContent = `The camera cannot be used (${error.name}).`;
    return;
  }
  get('video').srcObject = stream;
  get('live').hidden = false;
}

function stop() {
  if (stream) stream.getTracks().forEach(track => track.stop());
  get('live').hidden = true;
}

function shoot() {
  const video = get('video'), canvas = document.createElement('canvas');
  if (!video.videoWidth) return;
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  canvas.toBlob(picture => score([new File([picture], 'camera.png')]), 'image/png');
}

get('files').addEventListener('change', chosen);
get('capture').addEventListener('change', chosen);
get('opacity').addEventListener('input', shade);
get('marks').addEventListener('change', shade);
get('camera').addEventListener('click', start);
get('stop').addEventListener('click', stop);
get('shoot').addEventListener('click', shoot);
// Browsers give a camera to pages of this machine and to https alone; else a phone's own is asked.
get('camera').hidden = !(navigator.mediaDevices && navigator.mediaDevices.getUserMedia);
get('snap').hidden = !matchMedia('(pointer: coarse)').matches;
for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, event => {
    event.preventDefault();
    get('drop').classList.toggle('over', name === 'dragenter' || name === 'dragover');
    if (name === 'drop') score([...event.dataTransfer.files]);
  });
}
refresh();
setInterval(refresh, 2000);
