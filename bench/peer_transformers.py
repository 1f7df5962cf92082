"""Times training steps of transformers' Llama 4 text model on CPU: fused AdamW, clipping, fp32.

Prints one JSON line. --balanced deals tokens out to experts in turn, as Caravan's bench_step does.
"""

import argparse
import json
import statistics
import time

import torch
import transformers
from memory import peak_rss_bytes
from transformers.models.llama4 import modeling_llama4


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="JSON: keys of Llama4TextConfig")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_len", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock starts")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--balanced", action="store_true")
    return parser.parse_args()


def deal_out(router, hidden_states):
    """Llama4Router.forward with the picks replaced: token t goes to expert t mod E (top-1)."""
    logits = torch.nn.functional.linear(hidden_states, router.weight, router.bias)
    picked = (torch.arange(logits.shape[0]) % logits.shape[1]).unsqueeze(1)
    values = logits.gather(1, picked)
    scores = torch.full_like(logits, float("-inf")).scatter_(1, picked, values)
    return torch.sigmoid(scores.float()).to(scores.dtype), logits


def build(arguments):
    config = transformers.Llama4TextConfig(
        **json.loads(arguments.model), attn_implementation=arguments.attention, use_cache=False
    )
    torch.manual_seed(1)
    return transformers.Llama4ForCausalLM(config).float().train()


def train_step(model, optimizer, tokens):
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def main():
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    if arguments.balanced:
        modeling_llama4.Llama4Router.forward = deal_out
    model = build(arguments)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    shape = (arguments.batch_size, arguments.sequence_len)
    step_ms = []
    for step in range(arguments.warmup + arguments.steps):
        tokens = torch.randint(model.config.vocab_size, shape)
        start = time.perf_counter()
        loss = train_step(model, optimizer, tokens)
        if step >= arguments.warmup:
            step_ms.append(1e3 * (time.perf_counter() - start))
    median = statistics.median(step_ms)
    print(json.dumps({
        "step_ms": median,
        "tok_s": 1e3 * arguments.batch_size * arguments.sequence_len / median,
        "peak_rss_bytes": peak_rss_bytes(),
        "last_loss": loss,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }))


if __name__ == "__main__":
    main()
