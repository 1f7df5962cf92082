// Names, families and attributes of ops, for dumps, errors and reports.
#include "runtime/ops.h"

#include <array>
#include <initializer_list>
#include <string>

#include "absl/strings/str_format.h"

namespace caravan {
namespace {

struct NameAndFamily {
  std::string_view name;
  std::string_view family;
};

struct DescriptionOf {
  NameAndFamily operator()(const Embedding&) const { return {"embedding", "embedding"}; }
  NameAndFamily operator()(const EmbeddingGrad&) const { return {"embedding_grad", "embedding"}; }
  NameAndFamily operator()(const MatMul&) const { return {"matmul", "matmul"}; }
  NameAndFamily operator()(const AddBias&) const { return {"add_bias", "matmul"}; }
  NameAndFamily operator()(const SumRows&) const { return {"sum_rows", "matmul"}; }
  NameAndFamily operator()(const RmsNorm&) const { return {"rms_norm", "norm"}; }
  NameAndFamily operator()(const RmsNormGrad&) const { return {"rms_norm_grad", "norm"}; }
  NameAndFamily operator()(const Rope&) const { return {"rope", "attention"}; }
  NameAndFamily operator()(const Attention&) const { return {"attention", "attention"}; }
  NameAndFamily operator()(const AttentionGrad&) const { return {"attention_grad", "attention"}; }
  NameAndFamily operator()(const SwiGlu&) const { return {"swiglu", "activation"}; }
  NameAndFamily operator()(const SwiGluGrad&) const { return {"swiglu_grad", "activation"}; }
  NameAndFamily operator()(const Add&) const { return {"add", "activation"}; }
  NameAndFamily operator()(const LinearCrossEntropy&) const {
    return {"linear_cross_entropy", "loss"};
  }
  NameAndFamily operator()(const LinearCrossEntropyGrad&) const {
    return {"linear_cross_entropy_grad", "loss"};
  }
  NameAndFamily operator()(const CrossEntropyPart&) const { return {"cross_entropy_part", "loss"}; }
  NameAndFamily operator()(const MergeCrossEntropy&) const {
    return {"merge_cross_entropy", "loss"};
  }
  NameAndFamily operator()(const CrossEntropyPartGrad&) const {
    return {"cross_entropy_part_grad", "loss"};
  }
  NameAndFamily operator()(const Fill&) const { return {"fill", "scalar"}; }
  NameAndFamily operator()(const Divide&) const { return {"divide", "scalar"}; }
  NameAndFamily operator()(const Accumulate&) const { return {"accumulate", "update"}; }
  NameAndFamily operator()(const SquaredNorm&) const { return {"squared_norm", "update"}; }
  NameAndFamily operator()(const ClipScale&) const { return {"clip_scale", "update"}; }
  NameAndFamily operator()(const AdamW&) const { return {"adamw", "update"}; }
  NameAndFamily operator()(const AllReduce&) const { return {"all_reduce", "collective"}; }
  NameAndFamily operator()(const AllGather&) const { return {"all_gather", "collective"}; }
  NameAndFamily operator()(const ReduceScatter&) const { return {"reduce_scatter", "collective"}; }
  NameAndFamily operator()(const AllToAll&) const { return {"all_to_all", "collective"}; }
  NameAndFamily operator()(const Slice&) const { return {"slice", "collective"}; }
  NameAndFamily operator()(const HeadNorm&) const { return {"head_norm", "norm"}; }
  NameAndFamily operator()(const HeadNormGrad&) const { return {"head_norm_grad", "norm"}; }
  NameAndFamily operator()(const TemperatureScale&) const {
    return {"temperature_scale", "attention"};
  }
  NameAndFamily operator()(const ChunkStart&) const { return {"chunk_start", "attention"}; }
  NameAndFamily operator()(const Route&) const { return {"route", "moe"}; }
  NameAndFamily operator()(const RouteGrad&) const { return {"route_grad", "moe"}; }
  NameAndFamily operator()(const Experts&) const { return {"experts", "moe"}; }
  NameAndFamily operator()(const ExpertsGrad&) const { return {"experts_grad", "moe"}; }
  NameAndFamily operator()(const Assign&) const { return {"assign", "moe"}; }
  NameAndFamily operator()(const Dispatch&) const { return {"dispatch", "moe"}; }
  NameAndFamily operator()(const DispatchGrad&) const { return {"dispatch_grad", "moe"}; }
  NameAndFamily operator()(const Combine&) const { return {"combine", "moe"}; }
  NameAndFamily operator()(const GroupedMatMul&) const { return {"grouped_matmul", "moe"}; }
  NameAndFamily operator()(const GroupedMatMulGrad&) const {
    return {"grouped_matmul_grad", "moe"};
  }
  NameAndFamily operator()(const UpdateRouterBias&) const {
    return {"update_router_bias", "update"};
  }
  NameAndFamily operator()(const AllReduceMax&) const { return {"all_reduce_max", "collective"}; }
  NameAndFamily operator()(const ExchangeRows&) const { return {"exchange_rows", "collective"}; }
  NameAndFamily operator()(const Cast&) const { return {"cast", "cast"}; }
  NameAndFamily operator()(const ReturnRows&) const { return {"return_rows", "collective"}; }
};

struct AttributesOf {
  // Those that are not empty, with spaces between.
  static std::string words(std::initializer_list<std::string> all) {
    std::string text;
    for (const std::string& word : all) {
      if (!text.empty() && !word.empty()) text += " ";
      text += word;
    }
    return text;
  }
  static std::string addend(Addend addend) {
    constexpr std::array kTexts = {"", "adds", "adds_in_place"};
    return kTexts[static_cast<size_t>(addend)];
  }
  std::string operator()(const Cast& op) const { return absl::StrFormat("to=%s", name(op.to)); }
  std::string operator()(const Embedding& op) const {
    return op.output == DType::f32 ? "" : absl::StrFormat("output=%s", name(op.output));
  }
  std::string operator()(const EmbeddingGrad& op) const { return addend(op.addend); }
  std::string operator()(const MatMul& op) const {
    return words({op.transpose_a ? "transpose_a" : "", op.transpose_b ? "transpose_b" : "",
                  addend(op.addend), op.f32_output ? "f32_output" : ""});
  }
  std::string operator()(const RmsNormGrad& op) const { return addend(op.addend); }
  std::string operator()(const RmsNorm& op) const { return absl::StrFormat("eps=%g", op.eps); }
  std::string operator()(const Rope& op) const {
    std::string text = absl::StrFormat("head_dim=%d theta=%g", op.head_dim, op.theta);
    if (op.scaling) {
      text += absl::StrFormat(" llama3=(%g,%g,%g,%d)", op.scaling->factor,
                              op.scaling->low_freq_factor, op.scaling->high_freq_factor,
                              op.scaling->original_max_position_embeddings);
    }
    return words({text, op.interleaved ? "interleaved" : "", op.inverse ? "inverse" : ""});
  }
  std::string operator()(const HeadNorm& op) const {
    return absl::StrFormat("head_dim=%d eps=%g", op.head_dim, op.eps);
  }
  std::string operator()(const HeadNormGrad& op) const {
    return absl::StrFormat("head_dim=%d", op.head_dim);
  }
  std::string operator()(const TemperatureScale& op) const {
    return absl::StrFormat("floor_scale=%g attn_scale=%g", op.floor_scale, op.attn_scale);
  }
  std::string operator()(const ChunkStart& op) const {
    return absl::StrFormat("chunk=%d sequence_len=%d", op.chunk, op.sequence_len);
  }
  static std::string slots(const Slots& slots) {
    return absl::StrFormat("slots=%d/%d%s", slots.per_sequence, slots.sequence_len,
                           slots.drops ? " drops" : "");
  }
  static std::string along(std::optional<Axis> axis) {
    return axis ? absl::StrFormat("axis=%s", name(*axis)) : "";
  }
  static std::string balance(float aux_loss_coef, float z_loss_coef, int64_t sequence_len) {
    return absl::StrFormat("aux_loss=%g z_loss=%g sequence_len=%d", aux_loss_coef, z_loss_coef,
                           sequence_len);
  }
  std::string operator()(const Route& op) const {
    return absl::StrFormat("top_k=%d %s", op.top_k,
                           balance(op.aux_loss_coef, op.z_loss_coef, op.sequence_len));
  }
  std::string operator()(const RouteGrad& op) const {
    return balance(op.aux_loss_coef, op.z_loss_coef, op.sequence_len);
  }
  std::string operator()(const Experts& op) const {
    return absl::StrFormat("%s num_experts=%d", slots(op.slots), op.num_experts);
  }
  std::string operator()(const ExpertsGrad& op) const { return slots(op.slots); }
  std::string operator()(const Assign& op) const {
    return words(
        {slots(op.slots), absl::StrFormat("num_experts=%d", op.num_experts), along(op.axis)});
  }
  std::string operator()(const Dispatch& op) const {
    return words({slots(op.slots), op.weighted ? "weighted" : "", along(op.axis)});
  }
  std::string operator()(const DispatchGrad& op) const {
    return words({op.adds_in_place ? "adds_in_place" : "", along(op.axis)});
  }
  std::string operator()(const Combine& op) const {
    return words({absl::StrFormat("top_k=%d", op.top_k), along(op.axis), addend(op.addend)});
  }
  std::string operator()(const GroupedMatMul& op) const {
    return words({op.transpose_b ? "transpose_b" : "", addend(op.addend)});
  }
  std::string operator()(const GroupedMatMulGrad& op) const {
    return words({absl::StrFormat("num_experts=%d", op.num_experts), addend(op.addend)});
  }
  std::string operator()(const UpdateRouterBias& op) const {
    return absl::StrFormat("rate=%g", op.rate);
  }
  std::string operator()(const AllReduceMax& op) const { return along(op.axis); }
  std::string operator()(const ExchangeRows& op) const { return along(op.axis); }
  std::string operator()(const ReturnRows& op) const { return along(op.axis); }
  template <typename Op>
  static std::string attention(const Op& op) {
    return absl::StrFormat("head_dim=%d sequence_len=%d group=%d%s", op.head_dim, op.sequence_len,
                           op.group, op.whole_sequences ? " whole_sequences" : "");
  }
  std::string operator()(const Attention& op) const { return attention(op); }
  std::string operator()(const AttentionGrad& op) const { return attention(op); }
  std::string operator()(const Fill& op) const { return absl::StrFormat("value=%g", op.value); }
  std::string operator()(const ClipScale& op) const {
    return absl::StrFormat("max_norm=%g", op.max_norm);
  }
  std::string operator()(const AdamW& op) const {
    return absl::StrFormat("beta1=%g beta2=%g eps=%g weight_decay=%g", op.beta1, op.beta2, op.eps,
                           op.weight_decay);
  }
  std::string operator()(const AllReduce& op) const {
    return absl::StrFormat("axis=%s", name(op.axis));
  }
  std::string operator()(const AllGather& op) const {
    return absl::StrFormat("axis=%s dim=%d%s", name(op.axis), op.dim,
                           op.in_place ? " in_place" : "");
  }
  std::string operator()(const ReduceScatter& op) const {
    return absl::StrFormat("axis=%s dim=%d", name(op.axis), op.dim);
  }
  std::string operator()(const AllToAll& op) const {
    return absl::StrFormat("axis=%s from_dim=%d to_dim=%d", name(op.axis), op.from_dim, op.to_dim);
  }
  std::string operator()(const Slice& op) const {
    return absl::StrFormat("axis=%s dim=%d", name(op.axis), op.dim);
  }
  template <typename Plain>
  requires(sizeof(Plain) == 1)  // an empty struct has no attributes; others must say theirs
      std::string
      operator()(const Plain&) const {
    return "";
  }
};

}  // namespace

std::string_view name(const Op& op) { return std::visit(DescriptionOf{}, op).name; }
std::string_view family(const Op& op) { return std::visit(DescriptionOf{}, op).family; }
std::string attributes(const Op& op) { return std::visit(AttributesOf{}, op); }

std::optional<Axis> collective_axis(const Op& op) {
  return std::visit(
      [](const auto& one) -> std::optional<Axis> {
        if constexpr (requires { one.axis; }) return one.axis;
        return std::nullopt;
      },
      op);
}

Addend addend(const Op& op) {
  return std::visit(
      [](const auto& one) {
        if constexpr (requires { one.addend; }) return one.addend;
        return Addend::none;
      },
      op);
}

bool is_collective(const Op& op) {
  return family(op) == "collective" && !std::holds_alternative<Slice>(op);
}

bool is_read(const Op& op, size_t input) {
  return input != 0 || !std::holds_alternative<EmbeddingGrad>(op);
}

bool is_placed_already(const Op& op) {
  return std::visit(
             [](const auto& one) {
               return requires { one.axis; };
             },
             op) ||
         std::holds_alternative<GroupedMatMul>(op) ||
         std::holds_alternative<GroupedMatMulGrad>(op) ||
         std::holds_alternative<CrossEntropyPart>(op) ||
         std::holds_alternative<MergeCrossEntropy>(op) ||
         std::holds_alternative<CrossEntropyPartGrad>(op);
}

}  // namespace caravan
