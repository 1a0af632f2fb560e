# The studio in a container, for CPU and GPU alike: the wheels of torch bring CUDA along.
#
#   docker build -t dmpo-studio .                                   CPU
#   docker build -t dmpo-studio --build-arg TORCH_BACKEND=cu128 .   NVIDIA GPU; run with --gpus all
#
# docs/deploy.md says how to run it, with PostgreSQL and without.

ARG PYTHON_VERSION=3.12
FROM python:${PYTHON_VERSION}-slim

ARG TORCH_BACKEND=cpu
ENV TORCH_BACKEND=${TORCH_BACKEND} \
    PYTHONUNBUFFERED=1 \
    UV_LINK_MODE=copy

RUN useradd --create-home --uid 1000 studio && mkdir -p /app /data && chown studio:studio /app /data
USER studio
WORKDIR /app

COPY --chown=studio:studio . .
RUN --mount=type=cache,target=/home/studio/.cache/uv,uid=1000,gid=1000 scripts/setup.sh run

ENV DMPO_HOME=/data/studio \
    DMPO_HOST=0.0.0.0 \
    HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s CMD [".venv/bin/dmpo", "health", "--seconds", "10"]
# SIGTERM checkpoints a round in progress; it goes on at the next start.
STOPSIGNAL SIGTERM
CMD [".venv/bin/dmpo", "serve"]
