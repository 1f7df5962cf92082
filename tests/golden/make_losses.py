"""Makes quickstart_losses.json and variants.json: what PyTorch computes from Caravan's own weights.

Initial weights and tokens come from the counter-based random numbers of runtime/rng.h, so that the
C++ tests start from the same bits. The rules are written out in README.md beside this file.
With --check nothing is written: everything runs in float64 and the distance from the stored files
is printed, which is the rounding noise that a test's tolerance must leave room for.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import platform
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "bench"))

from llama_pytorch import IGNORED_TARGET, Llama, LlamaConfig, decay_groups  # noqa: E402
from philox import RandomPurpose, RandomStream, stable_hash  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run, whole: every number that its losses depend on."""

    model: LlamaConfig = LlamaConfig()
    init_seed: int = 1
    data_seed: int = 1234
    batch_size: int = 8
    sequence_len: int = 128
    documents: list[int] | None = None  # lengths that each sequence is packed from
    max_steps: int = 50
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 10
    min_lr_ratio: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.1
    max_grad_norm: float | None = 1.0


SMALL = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def small_recipe(documents=None, max_grad_norm=0.1, **model):
    return Recipe(
        model=dataclasses.replace(SMALL, **model),
        batch_size=4,
        documents=documents,
        max_steps=5,
        lr_scheduler_type="constant",
        warmup_steps=0,
        min_lr_ratio=1.0,
        max_grad_norm=max_grad_norm,
    )


def variants():
    biased = dict(attention_bias=True, mlp_bias=True)
    return {
        "mha_untied_biases": small_recipe(
            num_key_value_heads=4, tie_word_embeddings=False, max_grad_norm=None, **biased
        ),
        "gqa_llama3_rope": small_recipe(rope_theta=500000.0, rope_scaling=LLAMA3_ROPE),
        "gqa_packed_documents": small_recipe(documents=[50, 30, 48]),
    }


def initial_value(recipe, name, shape):
    """Element e of a tensor is number e of the stream that its name selects; norm weights are 1."""
    if "norm" in name:
        return np.ones(shape, np.float32)
    stream = RandomStream(recipe.init_seed, RandomPurpose.INIT, stable_hash(name))
    values = stream.normal(np.arange(math.prod(shape)))
    return (recipe.model.initializer_range * values).astype(np.float32).reshape(shape)


def build_model(recipe, dtype):
    model = Llama(recipe.model, recipe.sequence_len, recipe.documents)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(initial_value(recipe, name, tuple(parameter.shape))))
    return model.to(dtype)


def batch(recipe, step):
    """Tokens and targets, each (batch_size, sequence_len); odd places follow from the even ones."""
    size = recipe.batch_size * (recipe.sequence_len + 1)
    vocab = recipe.model.vocab_size
    stream = RandomStream(recipe.data_seed, RandomPurpose.TEST, step)
    u = stream.uniform(np.arange(size))
    tokens = (vocab * (u * u * u)).astype(np.int64)  # small numbers are frequent, as words are
    odd = np.arange(1, size, 2)
    tokens[odd] = (tokens[odd - 1] * 7 + 3) % vocab
    tokens = torch.from_numpy(tokens.reshape(recipe.batch_size, recipe.sequence_len + 1))
    targets = tokens[:, 1:].clone()
    if recipe.documents:
        targets[:, np.cumsum(recipe.documents) - 1] = IGNORED_TARGET
    return tokens[:, :-1].contiguous(), targets


def learning_rate(recipe, step):
    """step counts from 1."""
    peak, floor = recipe.learning_rate, recipe.learning_rate * recipe.min_lr_ratio
    if step <= recipe.warmup_steps:
        return peak * step / recipe.warmup_steps
    if recipe.lr_scheduler_type == "constant":
        return peak
    done = (step - recipe.warmup_steps) / (recipe.max_steps - recipe.warmup_steps)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(recipe, model):
    return torch.optim.AdamW(
        decay_groups(model, recipe.weight_decay),
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        eps=recipe.adam_epsilon,
        foreach=False,
    )


def l2_norm(tensor):
    return torch.linalg.vector_norm(tensor.double()).item()


def parameter_norms(model):
    """L2 norms by name: they tell a wrong start from a wrong gradient, and in which tensor."""
    return {
        name: {
            "shape": list(p.shape),
            "init_norm": l2_norm(p.detach()),
            "grad_norm": l2_norm(p.grad),
        }
        for name, p in model.named_parameters()
    }


def clip(model, limit):
    """clip_grad_norm_ with the norm in double: in fp32 PyTorch's is off by 7e-5 at 10 M elements."""
    gradients = [p.grad for p in model.parameters()]
    grad_norm = math.sqrt(sum(l2_norm(gradient) ** 2 for gradient in gradients))
    if limit is not None:
        for gradient in gradients:
            gradient.mul_(min(1.0, limit / (grad_norm + 1e-6)))
    return grad_norm


def train(recipe, dtype):
    model = build_model(recipe, dtype)
    optimizer = make_optimizer(recipe, model)
    result = {"losses": [], "grad_norms": [], "learning_rates": []}
    for step in range(recipe.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step + 1)
        optimizer.zero_grad()
        loss = model(*batch(recipe, step))
        loss.backward()
        if step == 0:
            result["first_step"] = parameter_norms(model)
        grad_norm = clip(model, recipe.max_grad_norm)
        optimizer.step()
        result["losses"].append(loss.item())
        result["grad_norms"].append(grad_norm)  # before clipping
        result["learning_rates"].append(learning_rate(recipe, step + 1))
    return result


def made_with():
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "dtype": "float32",
    }


def record(recipe, dtype):
    tokens, targets = batch(recipe, 0)
    return {
        "recipe": dataclasses.asdict(recipe),
        "first_tokens": tokens[0, :16].tolist(),
        "counted_targets": int((targets != IGNORED_TARGET).sum()),
        **train(recipe, dtype),
    }


def records(dtype):
    """File name -> content."""
    small = {name: record(recipe, dtype) for name, recipe in variants().items()}
    return {
        "variants.json": {"made_with": made_with(), "variants": small},
        "quickstart_losses.json": {"made_with": made_with(), **record(Recipe(), dtype)},
    }


def largest_difference(stored, fresh):
    """Largest relative difference of two lists of numbers."""
    return max(abs(a - b) / abs(b) for a, b in zip(stored, fresh, strict=True))


def first_gradients(run):
    return [entry["grad_norm"] for entry in run["first_step"].values()]


def check(stored, fresh, label):
    for key in ("losses", "grad_norms"):
        print(f"{label} {key}: {largest_difference(stored[key], fresh[key]):.2e} relative")
    difference = largest_difference(first_gradients(stored), first_gradients(fresh))
    print(f"{label} first-step gradient norms by tensor: {difference:.2e} relative")


def check_all():
    for name, fresh in records(torch.float64).items():
        stored = json.loads((HERE / name).read_text())
        for label in fresh.get("variants", {}):
            check(stored["variants"][label], fresh["variants"][label], label)
        if "losses" in fresh:
            check(stored, fresh, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with float64, write nothing")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.check:
        check_all()
        return
    for name, content in records(torch.float32).items():
        (HERE / name).write_text(json.dumps(content, indent=1) + "\n")
        print(f"wrote {HERE / name}")


if __name__ == "__main__":
    main()
