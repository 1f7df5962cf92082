// Times bf16 products on a GPU: cuBLASLt's at the sizes of models of 1.5 and 8 billion parameters
// and 8192^3, those of 16 experts, and the loss. Usage: bench_cuda_matmul [device]. Prints JSON.
// Without a device: one line, exit code 2.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "runtime/bfloat16.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"

namespace {

using namespace caravan;

constexpr int64_t kTokens = 8192;
constexpr int kWarmUps = 3;  // the first one chooses algorithms
constexpr int kRuns = 20;

struct Case {
  std::string name;
  Op op;
  TensorSpecs inputs;
  double flops;
  std::vector<int32_t> integers{};  // what inputs of i32 hold
};

TensorSpec bf16(const Shape& shape) { return {shape, DType::bf16}; }

double product(int64_t m, int64_t n, int64_t k) { return 2.0 * double(m) * double(n) * double(k); }

// Forward, and both gradients: of the input, and of the weight (f32).
void add_products(std::vector<Case>& cases, const std::string& name, int64_t outputs,
                  int64_t inputs) {
  const TensorSpec x = bf16({kTokens, inputs}), y = bf16({kTokens, outputs});
  const TensorSpec weight = bf16({outputs, inputs});
  const double flops = product(kTokens, outputs, inputs);
  cases.push_back({name, MatMul{false, true}, {x, weight}, flops});
  cases.push_back({name + " dx", MatMul{}, {y, weight}, flops});
  cases.push_back({name + " dweight", MatMul{true, false, Addend::none, true}, {y, x}, flops});
}

void add_model(std::vector<Case>& cases, const std::string& name, int64_t hidden, int64_t keys,
               int64_t mlp) {
  constexpr int64_t kVocab = 128256;
  add_products(cases, name + " q", hidden, hidden);
  add_products(cases, name + " k", keys, hidden);
  add_products(cases, name + " up", mlp, hidden);
  add_products(cases, name + " down", hidden, mlp);
  std::vector<int32_t> targets;
  for (int32_t t = 0; t < kTokens; ++t) targets.push_back(t * 15);
  cases.push_back({name + " loss with gradients",
                   LinearCrossEntropyGrad{},
                   {bf16({kTokens, hidden}), bf16({kVocab, hidden}), {{kTokens}, DType::i32}, {{}}},
                   3 * product(kTokens, kVocab, hidden),
                   targets});
}

void add_experts(std::vector<Case>& cases, int64_t rows, int64_t hidden, int64_t width) {
  constexpr int64_t kExperts = 16;
  const std::vector<int32_t> counts(kExperts, static_cast<int32_t>(rows / kExperts));
  const std::string name = "16 experts, " + std::to_string(rows) + " rows";
  const TensorSpec x = bf16({rows, hidden}), y = bf16({rows, width}), c{{kExperts}, DType::i32};
  const TensorSpec weights = bf16({kExperts, hidden, width});
  const double flops = product(rows, hidden, width);
  cases.push_back({name, GroupedMatMul{false}, {x, weights, c}, flops, counts});
  cases.push_back({name + " dx", GroupedMatMul{true}, {y, weights, c}, flops, counts});
  cases.push_back({name + " dweight", GroupedMatMulGrad{kExperts}, {x, y, c}, flops, counts});
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  cases.push_back(
      {"8192^3", MatMul{}, {bf16({8192, 8192}), bf16({8192, 8192})}, product(8192, 8192, 8192)});
  add_model(cases, "1.5B", 2048, 512, 8192);
  add_model(cases, "8B", 4096, 1024, 14336);
  for (const int64_t rows : {2048, 16384}) add_experts(cases, rows, 4096, 2048);
  return cases;
}

// Numbers like a model's: products of constants draw less power and run faster.
std::vector<uint16_t> random_numbers() {
  std::vector<uint16_t> numbers(8 << 20);
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (uint16_t& number : numbers) number = to_bfloat16(normal(generator)).bits;
  return numbers;
}

class Bench {
 public:
  explicit Bench(int device) : backend_(make_cuda_backend({.device = device})) {
    cuda::check_cuda(cudaEventCreate(&begin_), "event");
    cuda::check_cuda(cudaEventCreate(&end_), "event");
  }
  std::string description() const { return backend_->description(); }

  double milliseconds(const Case& c) {
    memory_.clear();
    const TensorSpecs out = infer(c.op, c.inputs);
    std::vector<TensorView> inputs, outputs;
    for (const TensorSpec& spec : c.inputs) inputs.push_back(input(spec, c));
    for (const TensorSpec& spec : out) outputs.push_back(tensor(spec));
    const int64_t bytes = backend_->workspace_bytes(c.op, c.inputs, out);
    const KernelArgs args{inputs, outputs, reserve(bytes), bytes, nullptr};
    for (int i = 0; i < kWarmUps; ++i) backend_->run(c.op, args, Stream::compute);
    const auto stream = static_cast<cudaStream_t>(backend_->stream_handle(Stream::compute));
    cuda::check_cuda(cudaEventRecord(begin_, stream), "event");
    for (int i = 0; i < kRuns; ++i) backend_->run(c.op, args, Stream::compute);
    cuda::check_cuda(cudaEventRecord(end_, stream), "event");
    backend_->synchronize();
    float total = 0;
    cuda::check_cuda(cudaEventElapsedTime(&total, begin_, end_), "time");
    return double{total} / kRuns;
  }

 private:
  std::byte* reserve(int64_t bytes) {
    return memory_.emplace_back(backend_->reserve(bytes))->data();
  }
  TensorView tensor(const TensorSpec& spec) {
    return {reserve(num_elements(spec.shape) * size_bytes(spec.dtype)), spec.shape, spec.dtype};
  }
  TensorView input(const TensorSpec& spec, const Case& c) {
    const TensorView view = tensor(spec);
    const int64_t bytes = view.size() * size_bytes(spec.dtype);
    const auto of_numbers = static_cast<int64_t>(numbers_.size() * sizeof(uint16_t));
    if (spec.dtype == DType::i32) {
      backend_->copy_in(view.data, c.integers.data(), bytes);
    } else if (spec.dtype == DType::f32) {
      backend_->fill(view.data, 0x3f800000, bytes);
    } else {
      for (int64_t at = 0; at < bytes; at += of_numbers) {
        backend_->copy_in(view.as<std::byte>() + at, numbers_.data(),
                          std::min(of_numbers, bytes - at));
      }
    }
    return view;
  }

  std::unique_ptr<Backend> backend_;
  std::vector<uint16_t> numbers_ = random_numbers();
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    Bench bench(argc > 1 ? std::atoi(argv[1]) : 0);
    nlohmann::json results = nlohmann::json::array();
    for (const Case& c : all_cases()) {
      const double ms = bench.milliseconds(c);
      results.push_back({{"name", c.name}, {"ms", ms}, {"tflops", c.flops / ms * 1e-9}});
    }
    std::cout << nlohmann::json{{"device", bench.description()}, {"results", results}}.dump(2)
              << std::endl;
    return 0;
  } catch (const Error& error) {
    std::cerr << "bench_cuda_matmul: " << error.what() << std::endl;
    return static_cast<int>(error.code());
  }
}
