# The suite in a container: for a Docker Space (card: `sdk: docker`, `app_port: 7860`) or any other host.
#
#   docker build -t demos .                                      weights come with the image, nothing is fetched later
#   docker build -t demos --build-arg WEIGHTS=no .               smaller; `python -m shared.fetch` brings them
#   docker build -t demos --build-arg TORCH_INDEX=<address> .    PyTorch from another index, see the Makefile
#   docker run -p 7860:7860 -e SUITE_ADMIN_TOKEN=... -v demos:/home/user/.cache demos
FROM python:3.11-slim

ARG TORCH_INDEX=""
ARG WEIGHTS="yes"

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# Docker Spaces run as this user. Packages belong to root, so that nothing that serves can change them. The cache folder
# is made here, as the user's, because a volume takes the owner of the folder that it is mounted at.
RUN useradd --create-home --uid 1000 user && install -d -o user -g user /home/user/.cache
ENV XDG_CACHE_HOME=/home/user/.cache \
    NUMBA_CACHE_DIR=/home/user/.cache/numba
WORKDIR /home/user/app

COPY requirements.txt constraints.txt ./
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)"; fi \
    && pip install -r requirements.txt -c constraints.txt

COPY app.py pyproject.toml LICENSE NOTICE ./
COPY shared/ shared/
COPY spaces/ spaces/

USER 1000
RUN if [ "$WEIGHTS" = "yes" ]; then python -m shared.fetch; fi

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('SUITE_PORT', 7860)}/health/ready\", timeout=5)"]
CMD ["python", "app.py", "--host", "0.0.0.0"]
