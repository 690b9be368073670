// Shows the figures of one type: `#type=2` after the page's address chooses it as well.
const filter = document.getElementById("filter");
function show() {
  const wanted = location.hash.slice("#type=".length);
  if (wanted) filter.elements.type.value = wanted;
  const chosen = filter.elements.type.value;
  for (const figure of document.querySelectorAll("#gallery figure"))
    figure.hidden = !["all", figure.dataset.type, figure.dataset.wrong].includes(chosen);
}
filter.addEventListener("change", () => location.replace("#type=" + filter.elements.type.value));
addEventListener("hashchange", show);
filter.hidden = false;
show();
