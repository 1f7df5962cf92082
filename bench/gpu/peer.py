"""Times training steps of a model of bench/gpu in PyTorch, as fast as PyTorch honestly goes.

scaled_dot_product_attention, torch.compile, fused AdamW, foreach clipping, experts by grouped
products over sorted tokens. The loss is read once, after all steps, so that the host runs ahead.
Two ways to compute in bf16:
  autocast  weights, moments and gradients in fp32, products and what lies between layers in bf16:
            what Caravan does, so this is the fair one
  bf16      all of it in bf16: fewer bytes and a less exact update, for what does not fit otherwise
Prints one JSON line; what does not fit into the device's memory is a line with "error".
"""

import argparse
import json
import pathlib
import sys
import time

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from llama_pytorch import Llama, LlamaConfig, Mlp, decay_groups  # noqa: E402

COMPILE_MODES = {"compile": "default", "graphs": "reduce-overhead"}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="{}", help="JSON, as bench_step prints it")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--sequence_len", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--warmup", type=int, default=4, help="steps before the clock starts")
    parser.add_argument("--mode", choices=["eager", *COMPILE_MODES], default="compile")
    parser.add_argument("--precision", choices=["autocast", "bf16"], default="autocast")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda",
                        help="cpu shows that it works, and measures nothing")
    return parser.parse_args()


def grouped_product(rows, weights, ends):
    """rows (T, in), sorted by expert; weights (E, in, out); ends (E), of each expert's rows."""
    if rows.is_cuda:
        return torch._grouped_mm(rows, weights.to(rows.dtype), offs=ends)
    parts = rows.tensor_split(ends[:-1].tolist())
    return torch.cat([part @ weight.to(rows.dtype) for part, weight in zip(parts, weights)])


class Mixture(nn.Module):
    """Each token goes through the shared expert and the one whose logit is the largest, whose input
    is multiplied by the logit's sigmoid. No token is dropped."""

    def __init__(self, config, num_experts):
        super().__init__()
        hidden, width = config.hidden_size, config.intermediate_size
        self.router = nn.Linear(hidden, num_experts, bias=False)
        self.gate_proj = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.up_proj = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.down_proj = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.shared_expert = Mlp(config)

    def experts(self, x, ends):
        hidden = nn.functional.silu(grouped_product(x, self.gate_proj, ends))
        return grouped_product(hidden * grouped_product(x, self.up_proj, ends),
                               self.down_proj, ends)

    def forward(self, x):
        shape = x.shape
        tokens = x.flatten(0, 1)  # (T, hidden)
        logits, chosen = self.router(tokens).float().max(dim=-1)
        counts = nn.functional.one_hot(chosen, len(self.gate_proj)).sum(dim=0)
        order = chosen.argsort(stable=True)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(
            x.device.type) else x.dtype
        rows = (tokens * logits.sigmoid()[:, None]).to(dtype)[order]
        routed = self.experts(rows, counts.cumsum(dim=0).int())
        out = torch.empty_like(routed).index_copy(0, order, routed)
        return self.shared_expert(x) + out.view(shape)


def build(config, num_experts, arguments):
    """On the device; fp32, or bf16 throughout."""
    torch.manual_seed(1)
    with torch.device(arguments.device):
        model = Llama(config, arguments.sequence_len)
        if num_experts:
            for layer in model.model.layers:
                layer.mlp = Mixture(config, num_experts)
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                nn.init.normal_(parameter, std=config.initializer_range)
    if arguments.precision == "bf16":
        return model.to(torch.bfloat16)
    # What lies between layers is bf16 too, as in Caravan; autocast alone would leave it fp32.
    model.model.embed_tokens.register_forward_hook(lambda _, __, out: out.to(torch.bfloat16))
    return model


class Training:
    def __init__(self, model, config, arguments):
        self.model, self.arguments = model, arguments
        mode = COMPILE_MODES.get(arguments.mode)
        self.forward = torch.compile(model, mode=mode) if mode else model
        self.optimizer = torch.optim.AdamW(
            decay_groups(model, 0.1), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
        shape = (arguments.batch_size, arguments.sequence_len + 1)
        tokens = torch.randint(config.vocab_size, shape, device=arguments.device)
        self.batch = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step(self):
        is_autocast = self.arguments.precision == "autocast"
        with torch.autocast(self.arguments.device, torch.bfloat16, enabled=is_autocast):
            loss = self.forward(*self.batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def run(self):
        """Seconds of a step, and the last loss."""
        for _ in range(self.arguments.warmup):
            loss = self.step().item()
        start = time.perf_counter()
        for _ in range(self.arguments.steps):
            loss = self.step().clone()  # the next step may use the memory of a graph's result
        last_loss = loss.item()
        return (time.perf_counter() - start) / self.arguments.steps, last_loss


def device_bytes():
    """What the device holds now, its context included; PyTorch gives nothing back by itself."""
    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def measure(arguments):
    keys = json.loads(arguments.model)
    num_experts = keys.pop("num_local_experts", 0)
    config = LlamaConfig(**keys)
    before = device_bytes()
    model = build(config, num_experts, arguments)
    seconds, loss = Training(model, config, arguments).run()
    return {
        "tok_s": arguments.batch_size * arguments.sequence_len / seconds,
        "step_ms": 1e3 * seconds,
        "device_bytes": device_bytes() - before,
        "loss": loss,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main():
    arguments = parse_arguments()
    result = {"torch": torch.__version__, "mode": arguments.mode,
              "precision": arguments.precision}
    try:
        result.update(measure(arguments))
    except torch.OutOfMemoryError as error:
        result["error"] = "out of memory: " + str(error).splitlines()[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
