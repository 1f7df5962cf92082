#include "launch/layout_rules.h"

#include <array>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/error.h"

namespace caravan {
namespace {

struct NamedSize {
  const char* name;
  std::optional<int64_t> size;  // absent: auto
};

std::string processes(int64_t count) {
  return count == 1 ? "is 1 process" : absl::StrFormat("are %d processes", count);
}

// "dp 2 x ep 1 x tp 4 = 8", of the sizes that are given.
std::string product_text(const std::vector<NamedSize>& given, int64_t product) {
  const std::string factors =
      absl::StrJoin(given, " x ", [](std::string* out, const NamedSize& axis) {
        absl::StrAppendFormat(out, "parallel.%s %d", axis.name, *axis.size);
      });
  return absl::StrFormat("%s = %d", factors, product);
}

[[noreturn]] void refuse_two_autos(const NamedSize& first, const NamedSize& second) {
  const bool is_default = std::string_view(first.name) == "dp";
  throw config_error(absl::StrFormat(
      "parallel.%s and parallel.%s are both auto%s, and only one of them can fill "
      "what is left of the processes; give the other, such as parallel.%s=1",
      first.name, second.name, is_default ? " (dp is, where it is left out)" : "", first.name));
}

[[noreturn]] void refuse_product(const std::vector<NamedSize>& given, int64_t product,
                                 int64_t num_processes) {
  const int64_t beside_dp = product / *given[0].size;
  std::string fix = absl::StrFormat("start with mpirun -n %d", product);
  if (num_processes % beside_dp == 0) fix += ", or use parallel.dp=auto";
  throw config_error(absl::StrFormat("%s, but there %s; %s", product_text(given, product),
                                     processes(num_processes), fix));
}

[[noreturn]] void refuse_remainder(const std::vector<NamedSize>& given, int64_t product,
                                   const char* open, int64_t num_processes) {
  throw config_error(absl::StrFormat(
      "%s does not divide the number of processes, %d, so parallel.%s=auto cannot fill what is "
      "left; start with mpirun -n %d or another multiple of %d",
      product_text(given, product), num_processes, open,
      (num_processes + product - 1) / product * product, product));
}

}  // namespace

ParallelSizes parallel_sizes(const ParallelConfig& config, int64_t num_processes) {
  const std::array axes = {NamedSize{"dp", config.dp}, NamedSize{"ep", config.ep},
                           NamedSize{"tp", config.tp}};
  const NamedSize* open = nullptr;
  std::vector<NamedSize> given;
  int64_t product = 1;
  for (const NamedSize& axis : axes) {
    if (!axis.size && open) refuse_two_autos(*open, axis);
    if (!axis.size) {
      open = &axis;
    } else {
      given.push_back(axis);
      product *= *axis.size;
    }
  }
  if (!open && product != num_processes) refuse_product(given, product, num_processes);
  if (open && num_processes % product != 0)
    refuse_remainder(given, product, open->name, num_processes);
  const int64_t rest = num_processes / product;
  return {.dp = config.dp.value_or(rest),
          .ep = config.ep.value_or(rest),
          .tp = config.tp.value_or(rest)};
}

namespace {

int64_t largest_divisor(int64_t value, int64_t most) {
  int64_t divisor = std::min(value, most);
  while (value % divisor != 0) --divisor;
  return divisor;
}

// What an axis splits into equal parts.
struct Split {
  const char* key;
  int64_t size;
  const char* axis;
  int64_t num_ranks;
  const char* reason;
};

void check_divides(const Split& split) {
  if (split.size % split.num_ranks == 0) return;
  throw config_error(
      absl::StrFormat("%s %d is not divisible by parallel.%s %d (%s); use parallel.%s=%d",
                      split.key, split.size, split.axis, split.num_ranks, split.reason, split.axis,
                      largest_divisor(split.size, split.num_ranks)));
}

// Ranks have whole key-value heads, or several ranks the same one.
bool shares_heads(const ModelConfig& model, int64_t tp) {
  const int64_t kv_heads = model.num_key_value_heads;
  return model.num_attention_heads % tp == 0 && (kv_heads % tp == 0 || tp % kv_heads == 0);
}

void check_heads(const ModelConfig& model, int64_t tp) {
  check_divides({"model.num_attention_heads", model.num_attention_heads, "tp", tp,
                 "each rank of tp has whole heads"});
  if (shares_heads(model, tp)) return;
  int64_t fix = tp;
  while (!shares_heads(model, fix)) --fix;
  throw config_error(absl::StrFormat(
      "neither of model.num_key_value_heads %d and parallel.tp %d divides the other (each rank of "
      "tp has whole key-value heads, or shares one with the same number of others); use "
      "parallel.tp=%d",
      model.num_key_value_heads, tp, fix));
}

void check_vocabulary(const ModelConfig& model, int64_t tp) {
  if (model.vocab_size % tp == 0) return;
  throw config_error(absl::StrFormat(
      "the vocabulary of %d tokens is not divisible by parallel.tp %d (each rank "
      "of tp has an equal part of it); use parallel.tp=%d, or for a new model model.vocab_size=%d",
      model.vocab_size, tp, largest_divisor(model.vocab_size, tp),
      (model.vocab_size + tp - 1) / tp * tp));
}

void check_sequence_parallel(const Config& config, int64_t tp) {
  if (!config.parallel.sequence_parallel) return;
  // With tp=auto a run on fewer processes is the same run; what is written down is a mistake.
  if (config.parallel.tp == 1) {
    throw config_error(
        "parallel.sequence_parallel is true, but parallel.tp is 1, so that there is nobody to "
        "share sequences with; give parallel.tp, or use parallel.sequence_parallel=false");
  }
  const int64_t sequences = config.train.micro_batch_size, length = config.data.sequence_len;
  if (sequences * length % tp == 0) return;
  throw config_error(absl::StrFormat(
      "parallel.sequence_parallel: train.micro_batch_size %d x data.sequence_len %d = %d tokens "
      "are not divisible by parallel.tp %d (each rank of tp has an equal part of them); use "
      "data.sequence_len=%d",
      sequences, length, sequences * length, tp, (length + tp - 1) / tp * tp));
}

void check_experts(const Config& config, int64_t ep) {
  const int64_t experts = config.model.num_local_experts;
  if (experts == 0) {
    if (config.moe) {
      throw config_error(
          "moe is given, but the model has no experts (model.num_local_experts); remove the "
          "section, or give the model experts");
    }
    if (ep == 1) return;
    throw config_error(absl::StrFormat(
        "parallel.ep is %d, but the model has no experts (model.num_local_experts); use "
        "parallel.ep=1, and parallel.dp or tp for more processes",
        ep));
  }
  check_divides(
      {"model.num_local_experts", experts, "ep", ep, "each rank of ep has whole experts"});
  if (config.moe && config.moe->capacity_factor > 0 && config.moe->slots) {
    throw config_error(absl::StrFormat(
        "moe.slots is %g, but with moe.capacity_factor %g the rows of experts follow from that; "
        "use moe.slots=auto, or leave capacity_factor out",
        *config.moe->slots, config.moe->capacity_factor));
  }
}

}  // namespace

void check_layout(const Config& config, const ParallelSizes& sizes) {
  check_experts(config, sizes.ep);
  check_heads(config.model, sizes.tp);
  check_divides({"model.intermediate_size", config.model.intermediate_size, "tp", sizes.tp,
                 "each rank of tp has an equal part of the MLP"});
  if (config.model.num_local_experts > 0) {
    check_divides({"model.intermediate_size_mlp", config.model.intermediate_size_mlp, "tp",
                   sizes.tp, "each rank of tp has an equal part of the MLP"});
  }
  check_vocabulary(config.model, sizes.tp);
  check_sequence_parallel(config, sizes.tp);
}

}  // namespace caravan
