# Three small stages around one large layer, ordered by how often they change: Python packages (TensorFlow is nearly all
# of the image), then the model, then this package. A code change rebuilds and pushes the last layer only.
ARG BASE_IMAGE=python:3.12.12-slim-bookworm

# Only the dependency list leaves this stage, so that editing anything else in pyproject.toml reinstalls nothing.
FROM ${BASE_IMAGE} AS requirements
COPY pyproject.toml /tmp/
RUN python -c "import tomllib; \
project = tomllib.load(open('/tmp/pyproject.toml', 'rb'))['project']; \
extras = project['optional-dependencies']; \
print(*project['dependencies'], *extras['otel'], *extras['catalog'], sep='\n')" > /requirements.txt

FROM ${BASE_IMAGE} AS dependencies
COPY --from=requirements /requirements.txt /tmp/
# The headers serve only to compile custom operations, libclang only to generate code: nothing imports either.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --requirement /tmp/requirements.txt \
 && python -m pip --python /opt/venv/bin/python uninstall --yes libclang \
 && rm -rf /opt/venv/lib/python3*/site-packages/tensorflow/include

# The compiler stays in this stage. Versions are not pinned: Debian keeps only the newest of each.
FROM ${BASE_IMAGE} AS package
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY service service
# Beside the environment, not into it: the final stage lays these few files over the large layer. The C code is
# optional for pip, but not here.
RUN python -m venv --without-pip /opt/venv \
 && python -m pip --python /opt/venv/bin/python install --no-cache-dir --no-deps --prefix /opt/dinserve . \
 && ls /opt/dinserve/lib/python3*/site-packages/service/engine/native/_forward.abi3.so \
 && ls /opt/dinserve/lib/python3*/site-packages/service/_counts.abi3.so \
 && ls /opt/dinserve/lib/python3*/site-packages/service/_heads.abi3.so

FROM ${BASE_IMAGE}
# For the rollout file. A fresh volume takes the owner of the folder that it covers.
RUN install --directory --owner=10001 --group=10001 --mode=0750 /state
COPY --from=dependencies /opt/venv /opt/venv
COPY model_artifacts /models
COPY --from=package /opt/dinserve /opt/venv

# The modules are compiled already, and nothing is written but /state: a read-only root is fine.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DIN_HOST=0.0.0.0 \
    DIN_PORT=8000 \
    DIN_MODEL_DIR=/models/din \
    DIN_ROLLOUT_FILE=/state/rollout.json
LABEL org.opencontainers.image.title="dinserve" \
      org.opencontainers.image.description="Online CTR scoring with a Deep Interest Network" \
      org.opencontainers.image.licenses="Apache-2.0"

# A number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["dinserve", "health"]
ENTRYPOINT ["dinserve"]
CMD ["serve"]
