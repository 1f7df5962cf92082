// Times every CPU kernel alone on the shapes of the quickstart model: one rank, 2048 tokens in
// sequences of 256. Usage: bench_kernels [threads [part of a name]]. Prints GF/s for products, GB/s
// for the rest.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/error.h"

namespace {

using namespace caravan;

constexpr int64_t kTokens = 2048;
constexpr int64_t kHidden = 384;
constexpr int64_t kKeyWidth = 128;  // 2 heads of 64
constexpr int64_t kHeads = 6;
constexpr int64_t kMlp = 1024;
constexpr int64_t kVocab = 4096;
constexpr int64_t kSequence = 256;
constexpr int64_t kGroup = kHidden / kKeyWidth;

struct Case {
  std::string label;
  Op op;
  std::vector<Shape> inputs;
  std::vector<Shape> outputs;
  double gigaflops = 0;            // 0: bytes moved count
  std::vector<size_t> integers{};  // inputs that are i32: the token within its sequence, or ids
};

double product(int64_t m, int64_t n, int64_t k) { return 2e-9 * double(m) * double(n) * double(k); }

std::vector<Case> cases() {
  const Shape x{kTokens, kHidden};
  const Shape keys{kTokens, kKeyWidth};
  const Shape mlp{kTokens, kMlp};
  const Shape tokens{kTokens};
  const Shape row{kHidden};
  const Shape head{kVocab, kHidden};
  const Shape lse{kTokens, kHeads};
  const double logits = product(kTokens, kVocab, kHidden);
  const double scores = product(kTokens, kSequence / 2, kHidden);  // of visible pairs
  return {
      {"matmul q",
       MatMul{false, true},
       {x, {kHidden, kHidden}},
       {x},
       product(kTokens, kHidden, kHidden)},
      {"matmul k",
       MatMul{false, true},
       {x, {kKeyWidth, kHidden}},
       {keys},
       product(kTokens, kKeyWidth, kHidden)},
      {"matmul up",
       MatMul{false, true},
       {x, {kMlp, kHidden}},
       {mlp},
       product(kTokens, kMlp, kHidden)},
      {"matmul down",
       MatMul{false, true},
       {mlp, {kHidden, kMlp}},
       {x},
       product(kTokens, kMlp, kHidden)},
      {"matmul up, dx",
       MatMul{false, false},
       {mlp, {kMlp, kHidden}},
       {x},
       product(kTokens, kMlp, kHidden)},
      {"matmul up, dw",
       MatMul{true, false},
       {mlp, x},
       {{kMlp, kHidden}},
       product(kTokens, kMlp, kHidden)},
      {"matmul q, dw",
       MatMul{true, false},
       {x, x},
       {{kHidden, kHidden}},
       product(kTokens, kHidden, kHidden)},
      {"attention",
       Attention{64, kSequence, kGroup},
       {x, keys, keys, tokens},
       {x, lse},
       2 * scores,
       {3}},
      {"attention_grad",
       AttentionGrad{64, kSequence, kGroup},
       {x, keys, keys, tokens, x, lse, x},
       {x, keys, keys},
       5 * scores,
       {3}},
      {"linear_cross_entropy", LinearCrossEntropy{}, {x, head, tokens}, {{}, {}}, logits, {2}},
      {"linear_cross_entropy_grad",
       LinearCrossEntropyGrad{},
       {x, head, tokens, {}},
       {{}, {}, x, head},
       3 * logits,
       {2}},
      {"embedding", Embedding{}, {head, tokens}, {x}, 0, {1}},
      {"embedding_grad", EmbeddingGrad{}, {head, tokens, x}, {head}, 0, {1}},
      {"rms_norm", RmsNorm{1e-5f}, {x, row}, {x, tokens}},
      {"rms_norm_grad", RmsNormGrad{}, {x, row, tokens, x}, {x, row}},
      {"rope q", Rope{64, 1e4, {}, false}, {x, tokens}, {x}, 0, {1}},
      {"rope k", Rope{64, 1e4, {}, false}, {keys, tokens}, {keys}, 0, {1}},
      {"rope q, interleaved",
       Rope{.head_dim = 64, .theta = 1e4, .scaling = {}, .interleaved = true},
       {x, tokens},
       {x},
       0,
       {1}},
      {"head_norm", HeadNorm{64, 1e-5f}, {x}, {x, lse}},
      {"head_norm_grad", HeadNormGrad{64}, {x, lse, x}, {x}},
      {"temperature_scale", TemperatureScale{128, 0.1}, {x, tokens}, {x}, 0, {1}},
      {"swiglu", SwiGlu{}, {mlp, mlp}, {mlp}},
      {"swiglu_grad", SwiGluGrad{}, {mlp, mlp, mlp}, {mlp, mlp}},
      {"add", Add{}, {x, x}, {x}},
      {"add_bias", AddBias{}, {x, row}, {x}},
      {"sum_rows", SumRows{}, {x}, {row}},
      {"squared_norm", SquaredNorm{}, {{11 << 20}}, {{}}},
      {"accumulate", Accumulate{}, {{11 << 20}, {11 << 20}, {}}, {{11 << 20}}},
      {"adamw",
       AdamW{0.9f, 0.95f, 1e-8f, 0.1f},
       {{11 << 20}, {11 << 20}, {11 << 20}, {11 << 20}, {}, {}, {}},
       {{11 << 20}, {11 << 20}, {11 << 20}}},
  };
}

// Cuts tensors of a case out of one reservation; small positive floats, so that all is finite.
class Tensors {
 public:
  explicit Tensors(Backend& backend) : memory_(backend.reserve(int64_t{1} << 29)) {}

  TensorView make(const Shape& shape, DType dtype) {
    TensorView view{memory_->data() + next_, shape, dtype};
    next_ += (view.size() * 4 + 4095) / 4096 * 4096;
    check(next_ <= memory_->bytes(), "the cases need more than %s", format_bytes(memory_->bytes()));
    for (int64_t i = 0; i < view.size(); ++i) {
      if (dtype == DType::i32) view.as<int32_t>()[i] = static_cast<int32_t>(i % kSequence);
      if (dtype == DType::f32) view.as<float>()[i] = 0.01f * static_cast<float>(i % 97 + 1);
    }
    return view;
  }
  void reset() { next_ = 0; }

 private:
  std::unique_ptr<DeviceMemory> memory_;
  int64_t next_ = 0;
};

double best_seconds(Backend& backend, const Op& op, const KernelArgs& args) {
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  double total = 0;
  for (int i = 0; i < 200 && (i < 5 || total < 0.5); ++i) {
    const auto begin = Clock::now();
    backend.run(op, args, Stream::compute);
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

void run_case(Backend& backend, Tensors& tensors, const Case& c) {
  tensors.reset();
  std::vector<TensorView> inputs;
  std::vector<TensorView> outputs;
  TensorSpecs input_specs;
  TensorSpecs output_specs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const bool integer = std::count(c.integers.begin(), c.integers.end(), i) > 0;
    inputs.push_back(tensors.make(c.inputs[i], integer ? DType::i32 : DType::f32));
    input_specs.push_back({c.inputs[i], inputs.back().dtype});
  }
  for (const Shape& shape : c.outputs) {
    outputs.push_back(tensors.make(shape, DType::f32));
    output_specs.push_back({shape});
  }
  // Attention sees whole sequences: every document starts at 0.
  if (c.label.starts_with("attention")) backend.fill(inputs[3].data, 0, inputs[3].size() * 4);
  const int64_t bytes = backend.workspace_bytes(c.op, input_specs, output_specs);
  const TensorView workspace = tensors.make({(bytes + 3) / 4}, DType::f32);
  const KernelArgs args{inputs, outputs, workspace.data, bytes};
  const double seconds = best_seconds(backend, c.op, args);
  double moved = 0;
  for (const TensorView& view : inputs) moved += 4e-9 * double(view.size());
  for (const TensorView& view : outputs) moved += 4e-9 * double(view.size());
  const bool computes = c.gigaflops > 0;
  std::printf("%-28s %9.1f us %8.1f %s\n", c.label.c_str(), seconds * 1e6,
              (computes ? c.gigaflops : moved) / seconds, computes ? "GF/s" : "GB/s");
}

}  // namespace

int main(int argc, char** argv) {
  const auto backend = make_cpu_backend({.num_threads = argc > 1 ? std::atoi(argv[1]) : 1});
  std::printf("%s\n", backend->description().c_str());
  Tensors tensors(*backend);
  for (const Case& c : cases()) {
    if (argc <= 2 || c.label.find(argv[2]) != std::string::npos) run_case(*backend, tensors, c);
  }
}
