// The specification for values of any type: the formulas see f32, rounding happens at the borders.
#include <algorithm>
#include <bit>
#include <memory>
#include <type_traits>
#include <variant>
#include <vector>

#include "runtime/bfloat16.h"
#include "runtime/cpu/reference.h"
#include "runtime/error.h"

namespace caravan::reference {
namespace {

// The tensors of a call as f32. What is f32 or i32 already is itself; an output in the storage of
// an input stays there.
class Widened {
 public:
  explicit Widened(const KernelArgs& args) {
    for (const TensorView& view : args.inputs) inputs_.push_back(widen(view));
    for (const TensorView& view : args.outputs) outputs_.push_back(widen(view));
    args_ = args;
    args_.inputs = inputs_;
    args_.outputs = outputs_;
  }
  const KernelArgs& args() const { return args_; }

  void round_to(std::span<const TensorView> outputs) const {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].dtype != DType::bf16) continue;
      const float* values = outputs_[i].as<float>();
      std::transform(values, values + outputs[i].size(), outputs[i].as<BFloat16>(), to_bfloat16);
    }
  }

 private:
  struct Buffer {
    const void* of;
    std::unique_ptr<float[]> values;
  };

  TensorView widen(const TensorView& view) {
    if (view.dtype != DType::bf16) return view;
    TensorView wide = view;
    wide.dtype = DType::f32;
    wide.data = buffer_of(view);
    return wide;
  }

  float* buffer_of(const TensorView& view) {
    const auto known = std::ranges::find(buffers_, view.data, &Buffer::of);
    if (known != buffers_.end()) return known->values.get();
    const auto count = static_cast<size_t>(view.size());
    Buffer& made = buffers_.emplace_back(view.data, std::make_unique<float[]>(count));
    const BFloat16* values = view.as<BFloat16>();
    std::transform(values, values + count, made.values.get(), to_float);
    return made.values.get();
  }

  std::vector<Buffer> buffers_;
  std::vector<TensorView> inputs_;
  std::vector<TensorView> outputs_;
  KernelArgs args_;
};

template <typename OpStruct>
constexpr bool kIsSpecified = requires(const OpStruct& op, const KernelArgs& args) {
  reference::run(op, args);
};

}  // namespace

bool is_specified(const Op& op) {
  return std::visit([]<typename OpStruct>(const OpStruct&) { return kIsSpecified<OpStruct>; }, op);
}

void run_any(const Op& op, const KernelArgs& args) {
  const Widened wide(args);
  std::visit(
      [&]<typename OpStruct>(const OpStruct& one) {
        if constexpr (kIsSpecified<OpStruct>)
          reference::run(one, wide.args());
        else
          throw internal_error(absl::StrFormat("[%s] has no specification", name(op)));
      },
      op);
  wide.round_to(args.outputs);
}

}  // namespace caravan::reference
