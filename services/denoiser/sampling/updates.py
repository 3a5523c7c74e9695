"""Samplers' steps as coefficients: how a network's answer becomes x0, and x0 the next x. See
`StepTable` for what they are multiplied with."""

import numpy as np

from services.denoiser.sampling.noise_schedule import Array, Schedule
from shared.models.samplers.samplers import Prediction, Sampler

Update = tuple[Array, Array, Array, Array]
"""r, u, v, n: `x' = r·x + u·x0 + v·x0_prev + n·noise`."""


def denoiser(prediction: Prediction, s: Schedule) -> tuple[Array, Array, Array]:
    """c_in, p, q: how the network is asked, and how its answer becomes x0."""
    norm = np.sqrt(s.alpha**2 + s.sigma**2)
    match prediction:
        case "epsilon":
            return 1.0 / norm, 1.0 / s.alpha, -s.sigma / s.alpha
        case "v_prediction":
            return 1.0 / norm, s.alpha / norm**2, -s.sigma / norm
        case "sample":
            return 1.0 / norm, np.zeros_like(norm), np.ones_like(norm)
        case "flow":
            return np.ones_like(norm), np.ones_like(norm), -s.sigma
        case "edm_epsilon" | "edm_v_prediction":
            # Karras et al. 2022, table 1: c_in, c_skip, c_out. Here alpha is 1.
            spread = np.sqrt(s.sigma**2 + s.sigma_data**2)
            out = s.sigma * s.sigma_data / spread
            sign = 1.0 if prediction == "edm_epsilon" else -1.0
            return 1.0 / spread, (s.sigma_data / spread) ** 2, sign * out


def update(sampler: Sampler, s: Schedule) -> Update:
    """How x and x0 become the next x."""
    match sampler.kind.update:
        case "straight":
            return _straight(s)
        case "ancestral":
            return _ancestral(s)
        case "multistep":
            return _multistep(s, _stochastic(s) if sampler.stochastic else _straight(s))
        case "heun":
            return _heun(s)
        case "consistency":
            return _consistent(s)


def _straight(s: Schedule) -> Update:
    return _first_order(s, s.sigma_next)


def _first_order(s: Schedule, sigma_next: Array) -> Update:
    r = sigma_next / s.sigma
    zero = np.zeros_like(r)
    return r, s.alpha_next - s.alpha * r, zero, zero.copy()


def _ancestral(s: Schedule) -> Update:
    """k-diffusion's `get_ancestral_step` with eta = 1: sigma'² = sigma_down² + sigma_up²."""
    up = np.sqrt(s.sigma_next**2 * (s.sigma**2 - s.sigma_next**2) / s.sigma**2)
    down = np.sqrt(s.sigma_next**2 - up**2)
    r, u, v, _ = _first_order(s, down)
    return r, u, v, up


def _stochastic(s: Schedule) -> Update:
    """First-order SDE-DPM-Solver++ (Lu et al. 2022, §5): with h as in `_multistep`, half of the way
    in x is made up for by fresh noise."""
    h = np.log(s.alpha_next / s.sigma_next) - np.log(s.alpha / s.sigma)
    left = np.exp(-2.0 * h)
    r = s.sigma_next / s.sigma * np.exp(-h)
    u, n = s.alpha_next * (1.0 - left), s.sigma_next * np.sqrt(1.0 - left)
    return r, u, np.zeros_like(r), n


def _multistep(s: Schedule, first: Update) -> Update:
    """DPM-Solver++ 2M (Lu et al. 2022, alg. 2), midpoint: x0 is extrapolated to
    x0 + (h/2h_prev)·(x0 - x0_prev), h being a step's length in lambda = log(alpha/sigma). `first`:
    the first-order step."""
    r, u, v, n = first
    lambda_now = np.log(s.alpha / s.sigma)
    h = np.diff(lambda_now)
    second = slice(1, s.first_order_from)
    h_next = np.log(s.alpha_next / s.sigma_next)[second] - lambda_now[second]
    extra = u[second] * h_next / (2.0 * h[: len(h_next)])
    u[second] += extra
    v[second] -= extra
    return r, u, v, n


def _heun(s: Schedule) -> Update:
    """Heun's method (Karras et al. 2022, alg. 1): an Euler step from sigma to sigma', then from its
    end, where the network is asked again, the same step with the mean of both slopes. As x there
    is on the line of the first slope, x + (sigma' - sigma)·(x0_prev - x0)/2sigma' is what that
    comes to. The last step, to sigma' = 0, is Euler's."""
    r, u, v, n = _straight(s)
    corrected = slice(1, None, 2)
    step = (s.sigma[1::2] - s.sigma[:-1:2]) / (2.0 * s.sigma[1::2])
    r[corrected], u[corrected], v[corrected] = 1.0, -step, step
    return r, u, v, n


def _consistent(s: Schedule) -> Update:
    """Multistep consistency sampling (Luo et al. 2023, arXiv 2310.04378, alg. 3): x0 under the
    boundary condition, with fresh noise for the next time."""
    t, data = s.t * s.timestep_scaling, 0.5
    skip, out = data**2 / (t**2 + data**2), t / np.sqrt(t**2 + data**2)
    return s.alpha_next * skip, s.alpha_next * out, np.zeros_like(t), s.sigma_next.copy()
