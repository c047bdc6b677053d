# docker build -t ppo-jax .                                  for CPU
# docker build -t ppo-jax:cuda --build-arg EXTRAS=cuda .     for CUDA: the wheels bring its libraries
# docker run --rm -v "$PWD/runs:/home/trainer/runs" ppo-jax train CartPole-v1
# docker run --rm --gpus all -v "$PWD/runs:/home/trainer/runs" ppo-jax:cuda train CartPole-v1
FROM python:3.12-slim

# Extras of pyproject.toml, separated by commas, such as cuda,sweep,brax
ARG EXTRAS=""

WORKDIR /opt/ppo_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY ppo_jax ppo_jax
RUN pip install --no-cache-dir ".${EXTRAS:+[${EXTRAS}]}" -c constraints.txt \
    && useradd --create-home --uid 1000 trainer \
    && install --directory --owner=trainer /home/trainer/runs

USER 1000
WORKDIR /home/trainer
ENTRYPOINT ["ppo-jax"]
CMD ["--help"]
