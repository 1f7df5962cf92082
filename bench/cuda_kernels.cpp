// Times every CUDA kernel that waits for memory, on sizes of a model of 8 billion parameters, and
// sets it against a copy on the same device in the same run.
//   bench_cuda_kernels [--json FILE] [--scale N]
// Bytes are what an op cannot avoid: each input read once, each output written once. The median of
// many runs counts, and every run works on other memory than the last, so that no cache helps.
// --scale N divides the sizes by N: for a trial on a small device.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/bench_main.h"
#include "runtime/backend.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int kWarmUps = 3;
constexpr int kRuns = 30;
constexpr int64_t kCacheBytes = int64_t{512} << 20;  // twice what any device's L2 holds
constexpr size_t kMostCalls = 16;                    // enough of these, unless --scale is given

struct Sizes {
  int64_t tokens = 16384;
  int64_t hidden = 4096;
  int64_t mlp = 14336;
  int64_t head = 128;
  int64_t vocab = 131072;
  int64_t parameters = 100'000'000;  // of one tensor; a run takes 8
};

struct Case {
  std::string label;
  Op op;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::vector<std::pair<size_t, size_t>> in_place{};  // output, input
  double bytes = 0;                                   // 0: all of the inputs and outputs
};

double bytes_of(const TensorSpec& spec) {
  return static_cast<double>(num_elements(spec.shape) * size_bytes(spec.dtype));
}

double bytes_moved(const Case& c) {
  if (c.bytes > 0) return c.bytes;
  double bytes = 0;
  for (const TensorSpec& spec : c.inputs) bytes += bytes_of(spec);
  for (const TensorSpec& spec : c.outputs) bytes += bytes_of(spec);
  return bytes;
}

// Of activations, in the type that they have.
std::vector<Case> activation_cases(const Sizes& s, DType dtype) {
  const std::string type = " " + std::string(name(dtype));
  const TensorSpec x{{s.tokens, s.hidden}, dtype}, mlp{{s.tokens, s.mlp}, dtype};
  const TensorSpec keys{{s.tokens, s.hidden / 4}, dtype};
  const TensorSpec row{{s.hidden}}, rstd{{s.tokens}}, tokens{{s.tokens}, DType::i32};
  const TensorSpec heads{{s.tokens, s.hidden / s.head}}, table{{s.vocab, s.hidden}};
  const Rope rope{.head_dim = s.head, .theta = 5e5, .scaling = {}};
  return {
      {"embedding" + type,
       Embedding{dtype},
       {table, tokens},
       {x},
       {},
       bytes_of({x.shape}) + bytes_of(x)},
      {"embedding_grad" + type,
       EmbeddingGrad{},
       {table, tokens, x},
       {table},
       {},
       bytes_of(x) + bytes_of(table)},
      {"rms_norm" + type, RmsNorm{1e-5f}, {x, row}, {x, rstd}},
      {"rms_norm_grad" + type, RmsNormGrad{}, {x, row, rstd, x}, {x, row}},
      {"rms_norm_grad, adds" + type, RmsNormGrad{Addend::separate}, {x, row, rstd, x, x}, {x, row}},
      {"head_norm" + type, HeadNorm{s.head, 1e-5f}, {x}, {x, heads}},
      {"head_norm_grad" + type, HeadNormGrad{s.head}, {x, heads, x}, {x}},
      {"rope, queries" + type, rope, {x, tokens}, {x}},
      {"rope, keys" + type, rope, {keys, tokens}, {keys}},
      {"temperature_scale" + type, TemperatureScale{8192, 0.1}, {x, tokens}, {x}},
      {"add_bias" + type, AddBias{}, {x, row}, {x}},
      {"sum_rows" + type, SumRows{}, {x}, {row}},
      {"swiglu" + type, SwiGlu{}, {mlp, mlp}, {mlp}},
      {"swiglu_grad" + type, SwiGluGrad{}, {mlp, mlp, mlp}, {mlp, mlp}},
      {"add" + type, Add{}, {x, x}, {x}},
  };
}

std::vector<Case> update_cases(const Sizes& s) {
  const TensorSpec weight{{s.parameters}}, half{{s.parameters}, DType::bf16}, one{{}};
  const double bytes = bytes_of(weight);
  return {
      {"cast f32 to bf16", Cast{DType::bf16}, {weight}, {half}},
      {"cast bf16 to f32", Cast{DType::f32}, {half}, {weight}},
      {"accumulate", Accumulate{}, {weight, weight, one}, {weight}, {{0, 0}}, 3 * bytes},
      {"squared_norm", SquaredNorm{}, {weight, weight, weight}, {one}},
      {"adamw",
       AdamW{0.9f, 0.95f, 1e-8f, 0.1f},
       {weight, weight, weight, weight, one, one, one},
       {weight, weight, weight},
       {{0, 0}, {1, 2}, {2, 3}},
       7 * bytes},
  };
}

// One set of tensors of a case, cut out of one reservation.
class Call {
 public:
  Call(Backend& backend, const Case& c, const Sizes& sizes) {
    int64_t total = 0;
    const auto place = [&](const TensorSpec& spec) {
      const int64_t at = total;
      total += (static_cast<int64_t>(bytes_of(spec)) + 255) / 256 * 256;
      return at;
    };
    std::vector<int64_t> inputs, outputs;
    for (const TensorSpec& spec : c.inputs) inputs.push_back(place(spec));
    for (const TensorSpec& spec : c.outputs) outputs.push_back(place(spec));
    for (const auto& [output, input] : c.in_place) outputs[output] = inputs[input];
    workspace_bytes_ = backend.workspace_bytes(c.op, c.inputs, c.outputs);
    const int64_t workspace = place({{(workspace_bytes_ + 3) / 4}});
    bytes_ = total;
    memory_ = backend.reserve(total);
    backend.fill(memory_->data(), 0x3c003c00, total);  // 0.0078 in f32 and in bf16
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs_.push_back({memory_->data() + inputs[i], c.inputs[i].shape, c.inputs[i].dtype});
      if (c.inputs[i].dtype == DType::i32) fill_ids(backend, inputs_.back(), c.op, sizes);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      outputs_.push_back({memory_->data() + outputs[i], c.outputs[i].shape, c.outputs[i].dtype});
    }
    workspace_ = memory_->data() + workspace;
  }
  KernelArgs args() const { return {inputs_, outputs_, workspace_, workspace_bytes_, nullptr}; }
  int64_t bytes() const { return bytes_; }

 private:
  // Positions of sequences of 4096; ids as text has them: few are frequent, most are rare.
  static void fill_ids(Backend& backend, const TensorView& view, const Op& op, const Sizes& sizes) {
    const bool is_table = family(op) == "embedding";
    std::vector<int32_t> ids;
    uint64_t state = 1;
    for (int64_t i = 0; i < view.size(); ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const double uniform = static_cast<double>(state >> 11) * 0x1p-53;
      const double rank = std::pow(static_cast<double>(sizes.vocab), uniform) - 1;  // Zipf's law
      ids.push_back(static_cast<int32_t>(is_table ? rank : static_cast<double>(i % 4096)));
    }
    backend.copy_in(view.data, ids.data(), view.size() * 4);
  }

  std::unique_ptr<DeviceMemory> memory_;
  std::vector<TensorView> inputs_;
  std::vector<TensorView> outputs_;
  std::byte* workspace_ = nullptr;
  int64_t workspace_bytes_ = 0;
  int64_t bytes_ = 0;
};

class Timer {
 public:
  explicit Timer(cudaStream_t stream) : stream_(stream) {
    cuda::check_cuda(cudaEventCreate(&begin_), "new event");
    cuda::check_cuda(cudaEventCreate(&end_), "new event");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Of action(i), i = 0, 1, ...: what it puts on the stream.
  double median_ms(const std::function<void(int)>& action) {
    for (int i = 0; i < kWarmUps; ++i) action(i);
    std::vector<double> times;
    for (int i = 0; i < kRuns; ++i) {
      cuda::check_cuda(cudaEventRecord(begin_, stream_), "event");
      action(i);
      cuda::check_cuda(cudaEventRecord(end_, stream_), "event");
      cuda::check_cuda(cudaEventSynchronize(end_), "a kernel");
      float ms = 0;
      cuda::check_cuda(cudaEventElapsedTime(&ms, begin_, end_), "time between events");
      times.push_back(ms);
    }
    std::ranges::nth_element(times, times.begin() + kRuns / 2);
    return times[kRuns / 2];
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

// Bytes read and written in a second by the device's own copy, in GB/s.
double copy_speed(Backend& backend, Timer& timer, cudaStream_t stream, int64_t bytes) {
  const auto from = backend.reserve(bytes), to = backend.reserve(bytes);
  const double ms = timer.median_ms([&](int) {
    cuda::check_cuda(cudaMemcpyAsync(to->data(), from->data(), static_cast<size_t>(bytes),
                                     cudaMemcpyDeviceToDevice, stream),
                     "copy");
  });
  return 2e-6 * static_cast<double>(bytes) / ms;
}

nlohmann::json measure(Backend& backend, Timer& timer, const Case& c, const Sizes& sizes,
                       double copy) {
  std::vector<std::unique_ptr<Call>> calls;
  for (int64_t bytes = 0; calls.size() < 2 || (calls.size() < kMostCalls && bytes < kCacheBytes);
       bytes += calls.back()->bytes()) {
    calls.push_back(std::make_unique<Call>(backend, c, sizes));
  }
  const double ms = timer.median_ms([&](int i) {
    backend.run(c.op, calls[static_cast<size_t>(i) % calls.size()]->args(), Stream::compute);
  });
  const double speed = 1e-6 * bytes_moved(c) / ms;
  std::printf("%-28s %10.1f %9.4f %8.0f %7.1f %%\n", c.label.c_str(), bytes_moved(c) / 1e6, ms,
              speed, 100 * speed / copy);
  std::fflush(stdout);
  return {{"op", c.label},
          {"bytes", bytes_moved(c)},
          {"ms", ms},
          {"gb_s", speed},
          {"of_copy", speed / copy}};
}

Sizes scaled(int64_t by) {
  Sizes sizes;
  for (int64_t* size : {&sizes.tokens, &sizes.vocab, &sizes.parameters}) {
    *size = std::max<int64_t>(1, *size / by);
  }
  return sizes;
}

std::string take_text(std::vector<std::string>& arguments, const std::string& option) {
  const auto at = std::ranges::find(arguments, option);
  if (at == arguments.end()) return "";
  if (at + 1 == arguments.end()) throw config_error(option + ": give a value");
  const std::string value = at[1];
  arguments.erase(at, at + 2);
  return value;
}

void bench(std::vector<std::string> arguments) {
  const std::string file = take_text(arguments, "--json"), by = take_text(arguments, "--scale");
  const int64_t scale = by.empty() ? 1 : std::atoll(by.c_str());
  if (!arguments.empty() || scale < 1) {
    throw config_error("usage: bench_cuda_kernels [--json FILE] [--scale N]");
  }
  const Sizes sizes = scaled(scale);
  const auto backend = make_cuda_backend({});
  const auto stream = static_cast<cudaStream_t>(backend->stream_handle(Stream::compute));
  Timer timer(stream);
  const double copy =
      copy_speed(*backend, timer, stream, std::max<int64_t>(4096, (int64_t{1} << 30) / scale));
  std::printf("%s\ncopy of memory: %.0f GB/s, read and written\n", backend->description().c_str(),
              copy);
  std::printf("%-28s %10s %9s %8s %9s\n", "op", "MB", "ms", "GB/s", "of copy");
  nlohmann::json results = nlohmann::json::array();
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const Case& c : activation_cases(sizes, dtype)) {
      results.push_back(measure(*backend, timer, c, sizes, copy));
    }
  }
  for (const Case& c : update_cases(sizes)) {
    results.push_back(measure(*backend, timer, c, sizes, copy));
  }
  if (file.empty()) return;
  std::ofstream out(file);
  out << nlohmann::json{{"device", backend->description()}, {"copy_gb_s", copy}, {"ops", results}};
  if (!out.flush()) throw config_error(file + ": cannot be written");
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  return caravan::run_bench("bench_cuda_kernels", argc, argv, caravan::bench);
}
