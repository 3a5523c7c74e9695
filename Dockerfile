# One image for every service: `docker run darkroom services.planner`.
# Any image with Python 3.11 or 3.12 as `python` will do, also one that holds a CUDA build of torch.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# Versions to install: constraints.txt pins them all. A base image that brings its own torch builds
# with --build-arg CONSTRAINTS=/dev/null, which keeps what is there.
ARG CONSTRAINTS=constraints.txt
# Passed to pip, for example "--extra-index-url https://download.pytorch.org/whl/cpu".
ARG PIP_OPTIONS=""
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/darkroom
COPY pyproject.toml constraints.txt LICENSE NOTICE README.md ./
COPY darkroom darkroom
COPY shared shared
COPY services services
COPY loadgen loadgen
COPY pocket pocket
RUN python -m pip install --no-cache-dir ${PIP_OPTIONS} --constraint ${CONSTRAINTS} setuptools \
 && python -m pip install --no-cache-dir ${PIP_OPTIONS} --constraint ${CONSTRAINTS} \
      --no-build-isolation --editable .

# The same user everywhere: an arena is readable by its owner's user alone. A volume mounted over
# one of these directories takes on its owner and its mode.
RUN useradd --uid 10001 --create-home darkroom \
 && install --directory --owner darkroom --mode 0700 /var/lib/darkroom /var/lib/weights \
      /run/keys /run/keys/nats /run/keys/gateway /run/keys/planner /run/keys/prompt_encoder \
      /run/keys/controlnet /run/keys/denoiser /run/keys/vae /run/keys/placement
USER darkroom

ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["python", "-m"]
CMD ["services.gateway"]
