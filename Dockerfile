# A service that scores with an exported model: docs/factory/serve.md has the commands.
# VARIANT=cpu (the default) or cuda, of which the host needs NVIDIA's driver and container toolkit.
FROM python:3.13-slim
ARG VARIANT=cpu

WORKDIR /app
COPY requirements.txt requirements-serve.txt ./
# Scoring needs no TensorFlow, the largest of the packages.
RUN sed -i '/^tensorflow/d' requirements.txt \
    && pip install --no-cache-dir -r requirements-serve.txt \
    && case "$VARIANT" in \
         cpu) ;; \
         cuda) pip install --no-cache-dir "jax[cuda13]>=0.10,<0.13" ;; \
         *) echo "VARIANT=$VARIANT is neither cpu nor cuda" && exit 1 ;; \
       esac

COPY . .
RUN useradd --create-home --uid 10001 jaxomaly \
    && mkdir /journal \
    && chown jaxomaly /journal
USER 10001
ENV PYTHONDONTWRITEBYTECODE=1

VOLUME ["/journal"]
EXPOSE 8000
# Alive is enough: while it compiles, /ready says 503.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# SIGTERM, which docker stop sends, ends it with what is in flight answered.
ENTRYPOINT ["python", "main.py", "--mode=serve", "--host=0.0.0.0"]
CMD ["--model=/model", "--journal=/journal"]
