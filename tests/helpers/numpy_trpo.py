"""TRPO in NumPy, derivatives written out: what the improver's steps are compared with."""

from __future__ import annotations

import numpy as np
from trust_region_case import Case


class NumpyPolicy:
    """tanh network with a softmax or Gaussian head, its derivatives written out, in float64."""

    def __init__(self, case: Case) -> None:
        body = case.params["body"]
        layers = (body["actor_torso"]["Dense_0"], body["policy_head"])
        parts = [layer[name] for layer in layers for name in ("bias", "kernel")]
        self.is_gaussian = case.family.name == "gaussian"
        if self.is_gaussian:
            parts.append(case.params["log_std"])
        self.shapes = [leaf.shape for leaf in parts]
        self.start = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in parts])
        self.observation = np.asarray(case.batch.window.observation, np.float64)
        self.action = np.asarray(case.batch.action)
        self.advantage = np.asarray(case.batch.advantage, np.float64)
        self.log_prob_old = self.log_prob(self.start)

    def cut(self, flat: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        pieces = np.split(flat, ends[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def head(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(hidden [N, H], logits or mean [N, A])."""
        b1, w1, b2, w2, *_ = self.cut(flat)
        hidden = np.tanh(self.observation @ w1 + b1)
        return hidden, hidden @ w2 + b2

    def log_pi(self, flat: np.ndarray) -> np.ndarray:
        """log pi of every action of a softmax, [N, A]."""
        _, logits = self.head(flat)
        return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))

    def log_prob(self, flat: np.ndarray) -> np.ndarray:
        if not self.is_gaussian:
            return self.log_pi(flat)[np.arange(len(self.action)), self.action]
        log_std, (_, mean) = self.cut(flat)[4], self.head(flat)
        z = (self.action - mean) / np.exp(log_std)
        return np.sum(-0.5 * z**2 - log_std - 0.5 * np.log(2.0 * np.pi), axis=1)

    def surrogate(self, flat: np.ndarray) -> float:
        return float(np.mean(np.exp(self.log_prob(flat) - self.log_prob_old) * self.advantage))

    def kl(self, first: np.ndarray, second: np.ndarray) -> float:
        """Mean KL[first || second] over the batch."""
        if not self.is_gaussian:
            log_p, log_q = self.log_pi(first), self.log_pi(second)
            return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1)))
        (_, mean_p), (_, mean_q) = self.head(first), self.head(second)
        std_p, std_q = (np.exp(self.cut(flat)[4]) for flat in (first, second))
        terms = np.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5
        return float(np.mean(np.sum(terms, axis=1)))

    def jacobian(self) -> np.ndarray:
        """Jacobian of logits, or of mean and log std, by the parameters at the start. [N, D, P]"""
        _, _, _, w2, *log_std = self.cut(self.start)
        hidden, output = self.head(self.start)
        width, rows = output.shape[1], []
        for n, s in enumerate(self.observation):
            for d in range(width):
                at_output = np.eye(width)[d]
                before_tanh = w2[:, d] * (1.0 - hidden[n] ** 2)
                by = [before_tanh, np.outer(s, before_tanh), at_output]
                by += [np.outer(hidden[n], at_output), *map(np.zeros_like, log_std)]
                rows.append(np.concatenate([np.ravel(x) for x in by]))
            for d in range(width if log_std else 0):
                row = np.zeros(len(self.start))
                row[len(self.start) - width + d] = 1.0
                rows.append(row)
        return np.reshape(rows, (len(self.observation), -1, len(self.start)))

    def score_and_metric(self) -> tuple[np.ndarray, np.ndarray]:
        """d log pi / d output of the actions taken [N, D]; the output's own Fisher [N, D, D]."""
        if not self.is_gaussian:
            p = np.exp(self.log_pi(self.start))
            metric = np.stack([np.diag(row) - np.outer(row, row) for row in p])
            return np.eye(p.shape[1])[self.action] - p, metric
        (_, mean), variance = self.head(self.start), np.exp(2.0 * self.cut(self.start)[4])
        error = self.action - mean
        score = np.concatenate([error / variance, error**2 / variance - 1.0], axis=1)
        diagonal = np.concatenate([1.0 / variance, np.full_like(variance, 2.0)])
        return score, np.stack([np.diag(diagonal)] * len(mean))

    def gradient_and_fisher(self) -> tuple[np.ndarray, np.ndarray]:
        jacobian, (score, metric) = self.jacobian(), self.score_and_metric()
        gradient = np.einsum("n,nd,ndp->p", self.advantage, score, jacobian)
        fisher = np.einsum("ndp,nde,neq->pq", jacobian, metric, jacobian)
        return gradient / len(self.advantage), fisher / len(self.advantage)


def numpy_trpo(policy: NumpyPolicy, delta: float) -> tuple[np.ndarray, float, bool]:
    """The algorithm of Stable-Baselines3-contrib 2.x as its documentation has it, in NumPy.

    15 iterations of conjugate gradient that stop at a residual of 1e-10, damping 0.1, at most 10
    trials shrinking by 0.8. It measures KL[new || old] in the search where the paper, and we, take
    KL[old || new]; for large steps of a Gaussian the two accept different fractions.

    Returns:
        the full step, the accepted fraction (0 for none), and whether its own direction of the KL
        would have accepted the same.
    """
    gradient, fisher = policy.gradient_and_fisher()
    matrix = fisher + 0.1 * np.eye(len(gradient))
    x, residual = np.zeros_like(gradient), gradient.copy()
    direction, square = residual.copy(), residual @ residual
    for _ in range(15):
        image = matrix @ direction
        length = square / (direction @ image)
        x, residual = x + length * direction, residual - length * image
        square_new = residual @ residual
        if square_new < 1e-10:
            break
        direction, square = residual + square_new / square * direction, square_new
    full = np.sqrt(2.0 * delta / (x @ matrix @ x)) * x
    old, accepted = policy.start, {"old-new": 0.0, "new-old": 0.0}
    for name in accepted:
        for k in range(10):
            new = old + 0.8**k * full
            kl = policy.kl(old, new) if name == "old-new" else policy.kl(new, old)
            if policy.surrogate(new) > policy.surrogate(old) and kl <= delta:
                accepted[name] = 0.8**k
                break
    return full, accepted["old-new"], accepted["old-new"] == accepted["new-old"]
