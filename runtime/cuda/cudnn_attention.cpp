// Plans of cuDNN's graph API, made through the headers of cudnn-frontend. Their types stay in this
// file, which takes long to compile.
#include "runtime/cuda/cudnn_attention.h"

#include <cudnn_frontend.h>

#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <tuple>

#include "runtime/cuda/attention_statistics.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/libraries.h"
#include "runtime/error.h"

namespace caravan::cuda {
namespace {

namespace fe = cudnn_frontend;
using TensorPtr = std::shared_ptr<fe::graph::Tensor_attributes>;

// Names of tensors in a graph; pointers are passed in this order.
enum Uid : int64_t { kQ = 1, kK, kV, kOut, kStatistics, kDout, kDq, kDk, kDv };

constexpr int64_t kAlignment = 256;  // of what lies in the workspace

// What plans differ by. Scores' scale follows from the head width.
using PlanKey = std::tuple<bool, bool, int, int, int, int, int>;

struct Plan {
  fe::graph::Graph graph;
  int64_t workspace_bytes = 0;
  std::string problem{};  // why it cannot be used; empty: it can
};

// (T, heads * h), seen as (B, heads, S, h).
struct Layout {
  const AttentionShape& shape;
  int num_heads;
  std::vector<int64_t> dim() const {
    return {shape.num_sequences, num_heads, shape.sequence_len, shape.head_dim};
  }
  std::vector<int64_t> stride() const {
    const int64_t width = int64_t{num_heads} * shape.head_dim;
    return {width * shape.sequence_len, shape.head_dim, width, 1};
  }
};

std::vector<int64_t> statistics_dim(const AttentionShape& s) {
  return {s.num_sequences, s.num_heads, s.sequence_len, 1};
}
std::vector<int64_t> statistics_stride(const AttentionShape& s) {
  return {int64_t{s.num_heads} * s.sequence_len, s.sequence_len, 1, 1};
}

TensorPtr add_input(fe::graph::Graph& graph, Uid uid, const Layout& layout) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_uid(uid)
                          .set_data_type(fe::DataType_t::BFLOAT16)
                          .set_dim(layout.dim())
                          .set_stride(layout.stride()));
}

void make_output(const TensorPtr& tensor, Uid uid, const Layout& layout) {
  tensor->set_output(true)
      .set_uid(uid)
      .set_data_type(fe::DataType_t::BFLOAT16)
      .set_dim(layout.dim())
      .set_stride(layout.stride());
}

fe::graph::Graph new_graph() {
  fe::graph::Graph graph;
  graph.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

fe::graph::Graph forward_graph(const AttentionShape& s) {
  fe::graph::Graph graph = new_graph();
  const Layout queries{s, s.num_heads}, keys{s, s.num_kv_heads};
  const TensorPtr q = add_input(graph, kQ, queries), k = add_input(graph, kK, keys);
  const auto [out, statistics] = graph.sdpa(q, k, add_input(graph, kV, keys),
                                            fe::graph::SDPA_attributes()
                                                .set_name("attention")
                                                .set_generate_stats(true)
                                                .set_attn_scale(s.scale)
                                                .set_causal_mask(true));
  make_output(out, kOut, queries);
  statistics->set_output(true)
      .set_uid(kStatistics)
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim(statistics_dim(s))
      .set_stride(statistics_stride(s));
  return graph;
}

fe::graph::Graph backward_graph(const AttentionShape& s, bool deterministic) {
  fe::graph::Graph graph = new_graph();
  const Layout queries{s, s.num_heads}, keys{s, s.num_kv_heads};
  const TensorPtr q = add_input(graph, kQ, queries), k = add_input(graph, kK, keys);
  const TensorPtr v = add_input(graph, kV, keys), out = add_input(graph, kOut, queries);
  const TensorPtr dout = add_input(graph, kDout, queries);
  const TensorPtr statistics = graph.tensor(fe::graph::Tensor_attributes()
                                                .set_uid(kStatistics)
                                                .set_data_type(fe::DataType_t::FLOAT)
                                                .set_dim(statistics_dim(s))
                                                .set_stride(statistics_stride(s)));
  const auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, out, dout, statistics,
                                                fe::graph::SDPA_backward_attributes()
                                                    .set_name("attention_grad")
                                                    .set_attn_scale(s.scale)
                                                    .set_causal_mask(true)
                                                    .set_deterministic_algorithm(deterministic));
  make_output(dq, kDq, queries);
  make_output(dk, kDk, keys);
  make_output(dv, kDv, keys);
  return graph;
}

// Of an error of many lines, the first.
std::string reason_of(fe::error_t error) {
  const std::string text = error.get_message();
  return text.substr(0, text.find('\n'));
}

// What is not deterministic can be left out once there are plans, and before one is chosen.
fe::error_t choose_engines(Plan& plan, bool deterministic) {
  if (deterministic) {
    plan.graph.deselect_numeric_notes({fe::NumericalNote_t::NONDETERMINISTIC});
  }
  return plan.graph.check_support();
}

void build(Plan& plan, cudnnHandle_t handle, bool deterministic) {
  using Step = std::function<fe::error_t(Plan&, cudnnHandle_t)>;
  const auto steps = {
      Step([](Plan& p, cudnnHandle_t) { return p.graph.validate(); }),
      Step([](Plan& p, cudnnHandle_t h) { return p.graph.build_operation_graph(h); }),
      Step([](Plan& p, cudnnHandle_t) {
        return p.graph.create_execution_plans({fe::HeurMode_t::A});
      }),
      Step([=](Plan& p, cudnnHandle_t) { return choose_engines(p, deterministic); }),
      Step([](Plan& p, cudnnHandle_t) { return p.graph.build_plans(); }),
      Step([](Plan& p, cudnnHandle_t) { return p.graph.get_workspace_size(p.workspace_bytes); })};
  for (const auto& step : steps) {
    const fe::error_t status = step(plan, handle);
    if (status.is_good()) continue;
    plan.problem = reason_of(status);
    return;
  }
}

// Query heads are dealt to key/value heads as cuDNN does it: evenly, from the first.
bool heads_are_even(const AttentionShape& s) {
  if (s.num_kv_heads == 1) return s.num_heads > 0;
  return s.first_head == 0 && s.num_heads == s.num_kv_heads * s.group;
}

class Cudnn final : public CudnnAttention {
 public:
  explicit Cudnn(cudnnHandle_t handle) : handle_(handle) {}
  ~Cudnn() override {
    plans_.clear();
    cudnnDestroy(handle_);
  }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  bool forward(const ForwardArgs<__nv_bfloat16>& args, const CudnnWorkspace& workspace,
               const Queue& queue) override;
  bool backward(const BackwardArgs<__nv_bfloat16>& args, const CudnnWorkspace& workspace,
                const Queue& queue) override;
  const std::vector<std::string>& notes() const override { return notes_; }

 private:
  template <typename Pointers>
  void execute(Plan& plan, const Pointers& pointers, void* workspace, cudaStream_t stream);
  Plan* find_plan(const AttentionShape& s, bool is_backward, int64_t bytes, const Queue& queue);
  void prepare(Plan& plan, const AttentionShape& s, bool is_backward, int64_t bytes,
               bool deterministic);

  cudnnHandle_t handle_;
  std::map<PlanKey, Plan> plans_;
  std::vector<std::string> notes_;
};

void Cudnn::prepare(Plan& plan, const AttentionShape& s, bool is_backward, int64_t bytes,
                    bool deterministic) {
  if (heads_are_even(s)) {
    plan.graph = is_backward ? backward_graph(s, deterministic) : forward_graph(s);
    build(plan, handle_, deterministic);
  } else {
    plan.problem = "the query heads of a key/value head are not all here";
  }
  if (plan.problem.empty() && plan.workspace_bytes > bytes) {
    plan.problem = absl::StrFormat("it wants %s of workspace, %s are planned",
                                   format_bytes(plan.workspace_bytes), format_bytes(bytes));
  }
  if (plan.problem.empty()) return;
  notes_.push_back(absl::StrFormat(
      "%s, %d sequences of %d, %d heads of %d, %d of keys: not on cuDNN%s: %s",
      is_backward ? "attention_grad" : "attention", s.num_sequences, s.sequence_len, s.num_heads,
      s.head_dim, s.num_kv_heads, deterministic ? " (deterministic)" : "", plan.problem));
}

// Null where our own kernels have to do it. Inside a recording nothing can be made.
Plan* Cudnn::find_plan(const AttentionShape& s, bool is_backward, int64_t bytes,
                       const Queue& queue) {
  if (s.num_sequences == 0) return nullptr;
  const PlanKey key{is_backward, queue.deterministic, s.num_sequences, s.sequence_len,
                    s.head_dim,  s.num_heads,         s.num_kv_heads};
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(queue.stream, &capture), "state of a stream");
    check(capture == cudaStreamCaptureStatusNone,
          "[cudnn] attention is recorded before it has run once");
    found = plans_.try_emplace(key).first;
    prepare(found->second, s, is_backward, bytes, queue.deterministic);
  }
  Plan& plan = found->second;
  const bool usable = plan.problem.empty() && heads_are_even(s) && plan.workspace_bytes <= bytes;
  return usable ? &plan : nullptr;
}

template <typename Pointers>
void Cudnn::execute(Plan& plan, const Pointers& pointers, void* workspace, cudaStream_t stream) {
  if (cudnnSetStream(handle_, stream) != CUDNN_STATUS_SUCCESS) {
    fail("cuDNN's stream", "cudnnSetStream failed");
  }
  auto sorted = pointers;
  const fe::error_t status =
      plan.graph.execute(handle_, sorted.data(), static_cast<int>(sorted.size()), workspace);
  if (status.is_bad()) fail("cuDNN's attention", reason_of(status));
}

// Statistics come first in the workspace, (B,H,S); cuDNN's own follows.
struct WorkspaceParts {
  float* statistics;
  std::byte* own;
  int64_t own_bytes;
};
WorkspaceParts parts_of(const CudnnWorkspace& workspace, const AttentionShape& s) {
  const int64_t bytes = int64_t{s.num_sequences} * s.sequence_len * s.num_heads * 4;
  const int64_t taken = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const auto address = reinterpret_cast<uintptr_t>(workspace.data);
  const auto skipped = static_cast<int64_t>(-address % uintptr_t{kAlignment});
  auto* data = static_cast<std::byte*>(workspace.data) + skipped;
  return {reinterpret_cast<float*>(data), data + taken, workspace.bytes - taken - skipped};
}

template <typename T>
void* untyped(T* pointer) {
  return const_cast<void*>(static_cast<const void*>(pointer));
}

bool Cudnn::forward(const ForwardArgs<__nv_bfloat16>& args, const CudnnWorkspace& workspace,
                    const Queue& queue) {
  const AttentionShape& s = args.shape;
  const WorkspaceParts parts = parts_of(workspace, s);
  Plan* plan = find_plan(s, false, parts.own_bytes, queue);
  if (plan == nullptr) return false;
  const std::array<void*, 5> pointers = {untyped(args.q), untyped(args.k), untyped(args.v),
                                         untyped(args.out), parts.statistics};
  execute(*plan, pointers, parts.own, queue.stream);
  transpose_statistics(args.lse, parts.statistics, {s.num_sequences, s.num_heads, s.sequence_len},
                       queue.stream);
  return true;
}

bool Cudnn::backward(const BackwardArgs<__nv_bfloat16>& args, const CudnnWorkspace& workspace,
                     const Queue& queue) {
  const AttentionShape& s = args.shape;
  const WorkspaceParts parts = parts_of(workspace, s);
  Plan* plan = find_plan(s, true, parts.own_bytes, queue);
  if (plan == nullptr) return false;
  transpose_statistics(parts.statistics, args.lse, {s.num_sequences, s.sequence_len, s.num_heads},
                       queue.stream);
  const std::array<void*, 9> pointers = {untyped(args.q),   untyped(args.k),  untyped(args.v),
                                         untyped(args.out), parts.statistics, untyped(args.dout),
                                         args.dq,           args.dk,          args.dv};
  execute(*plan, pointers, parts.own, queue.stream);
  return true;
}

}  // namespace

std::unique_ptr<CudnnAttention> make_cudnn_attention(std::string& problem) {
  problem = open_cudnn();
  if (!problem.empty()) return nullptr;
  cudnnHandle_t handle = nullptr;
  const cudnnStatus_t status = cudnnCreate(&handle);
  if (status != CUDNN_STATUS_SUCCESS) fail("cuDNN", cudnnGetErrorString(status));
  return std::make_unique<Cudnn>(handle);
}

std::string cudnn_version() {
  if (!open_cudnn().empty()) return "";
  const auto version = static_cast<int>(cudnnGetVersion());  // 91900
  return absl::StrFormat("%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace caravan::cuda
