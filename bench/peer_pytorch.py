"""Times training steps of a Llama in PyTorch on CPU, as fast as PyTorch honestly goes.

Fused AdamW, foreach clipping, scaled_dot_product_attention, denormals flushed; fp32, as Caravan.
Prints one JSON line. The allocator's environment is the caller's choice: compare.py tries both.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time

import torch

from llama_pytorch import Llama, LlamaConfig, decay_groups
from memory import peak_rss_bytes


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="{}", help="JSON: keys that differ from quickstart's")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_len", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the clock starts")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--loss", choices=["logits", "chunked"], default="logits")
    return parser.parse_args()


def random_batches(config, arguments):
    """An endless stream of tokens and targets, each (batch_size, sequence_len); made beforehand."""
    torch.manual_seed(1)
    shape = (4, arguments.batch_size, arguments.sequence_len + 1)
    pool = torch.randint(config.vocab_size, shape)
    step = 0
    while True:
        tokens = pool[step % len(pool)]
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        step += 1


def build(config, arguments):
    model = Llama(config, arguments.sequence_len, chunked_loss=arguments.loss == "chunked")
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, std=config.initializer_range)
    return model


def train_step(model, forward, optimizer, data):
    """Returns the loss as a number, so that nothing of the step is left undone."""
    loss = forward(*data)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def time_steps(config, arguments):
    """Milliseconds of each timed step, and the last loss."""
    model = build(config, arguments)
    forward = torch.compile(model) if arguments.mode == "compile" else model
    optimizer = torch.optim.AdamW(
        decay_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True
    )
    batches = random_batches(config, arguments)
    step_ms = []
    for step in range(arguments.warmup + arguments.steps):
        start = time.perf_counter()
        loss = train_step(model, forward, optimizer, next(batches))
        if step >= arguments.warmup:
            step_ms.append(1e3 * (time.perf_counter() - start))
    return step_ms, loss


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # this thread; workers inherit it, as they start later
    config = LlamaConfig(**json.loads(arguments.model))
    import_rss_bytes = peak_rss_bytes()
    step_ms, loss = time_steps(config, arguments)
    median = statistics.median(step_ms)
    result = {
        "step_ms": median,
        "tok_s": 1e3 * arguments.batch_size * arguments.sequence_len / median,
        "fastest_step_ms": min(step_ms),
        "peak_rss_bytes": peak_rss_bytes(),
        "import_rss_bytes": import_rss_bytes,
        "last_loss": loss,
        "torch": torch.__version__,
        "malloc": {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")},
        **{k: v for k, v in vars(arguments).items() if k != "model"},
        "model": dataclasses.asdict(config),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
