# Images of replimat:   docker build --target cpu --tag replimat:cpu .      (or: make image VARIANT=cpu)
#
#   cpu     the whole suite, processor build of torch where pip finds one
#   gpu     the whole suite on CUDA
#   train   on CUDA, only what `replimat fit` and a supervised `replimat evaluate` need
#   dft     `replimat dft`: the suite of cpu, and GPAW with its PAW data from Debian
#
#   docker run replimat:cpu                                                            what replimat can do
#   docker run --entrypoint snakemake --volume replimat:/replimat replimat:cpu --cores all     the whole suite
#   docker run --gpus all --volume "$PWD/runs:/replimat/runs" ... replimat:train fit cgcnn mp-formation-energy
#
# More, also without a daemon and under apptainer: docs/images.md
#
# A pip configuration (own mirror, folder of wheels) can be lent to the build and is not kept in the image:
#   docker build --secret id=pip,src=$HOME/.config/pip/pip.conf ...

ARG BASE=debian:bookworm-slim

# hadolint ignore=DL3006
FROM ${BASE} AS python
# Further Debian packages, such as kubernetes-client (kubectl) for profiles/kubernetes.
ARG EXTRA=""
# hadolint ignore=DL3008,SC2086
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 ca-certificates libgomp1 ${EXTRA} \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 replimat \
    && install --directory --owner=replimat --group=replimat /replimat
WORKDIR /replimat
ENV PATH=/opt/venv/bin:$PATH \
    REPLIMAT_ROOT=/replimat
LABEL org.opencontainers.image.title="replimat" \
      org.opencontainers.image.description="Re-runs the experiments of AI-for-materials papers and judges what they report"
ENTRYPOINT ["replimat"]
CMD ["--help"]

# Packages come before the project, so that an edited source file does not move gigabytes. replimat itself is installed as
# a pointer to /replimat/src, where the project is put later, or where a checkout is mounted.
# The locks name every package with its hash, so pip resolves nothing; only cpu leaves the build of torch to pip.
FROM python AS tools
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && mkdir --parents src/replimat \
    && touch README.md
COPY envs/ /envs/
COPY pyproject.toml ./

FROM tools AS packages-cpu
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir --no-deps --require-hashes --requirement /envs/cpu.txt \
    && pip install --no-cache-dir --requirement /envs/torch.txt \
    && pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM tools AS packages-gpu
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir --no-deps --require-hashes --requirement /envs/gpu.txt \
    && pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM tools AS packages-train
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --no-cache-dir --no-deps --require-hashes --requirement /envs/train.txt \
    && pip install --no-cache-dir --no-deps --no-build-isolation --editable .

# The project belongs to the user, who writes data/, runs/ and results/ there.
FROM python AS train
COPY --from=packages-train /opt/venv /opt/venv
COPY --chown=replimat:replimat . ./
USER 1000:1000
ARG REVISION=unknown
ENV REPLIMAT_COMMIT=${REVISION}
LABEL org.opencontainers.image.revision="${REVISION}"

# GPAW stays with the Python of Debian that it was built for; `replimat dft` finds it there.
FROM python AS dft
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gpaw gpaw-data \
    && rm -rf /var/lib/apt/lists/*
COPY --from=packages-cpu /opt/venv /opt/venv
COPY --chown=replimat:replimat . ./
USER 1000:1000
ARG REVISION=unknown
ENV REPLIMAT_COMMIT=${REVISION}
LABEL org.opencontainers.image.revision="${REVISION}"

FROM python AS gpu
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --chown=replimat:replimat . ./
USER 1000:1000
ARG REVISION=unknown
ENV REPLIMAT_COMMIT=${REVISION}
LABEL org.opencontainers.image.revision="${REVISION}"

FROM python AS cpu
COPY --from=packages-cpu /opt/venv /opt/venv
COPY --chown=replimat:replimat . ./
USER 1000:1000
ARG REVISION=unknown
ENV REPLIMAT_COMMIT=${REVISION}
LABEL org.opencontainers.image.revision="${REVISION}"
