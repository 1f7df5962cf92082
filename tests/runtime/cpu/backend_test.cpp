#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>

#include "runtime/cpu/threads.h"
#include "runtime/error.h"
#include "tests/runtime/kernels/op_check.h"
#include "tests/support/silent_communicator.h"

namespace caravan {
namespace {

TEST(Threads, EveryTaskOnceWithAnyCount) {
  for (const int count : {1, 2, 5}) {
    const cpu::CpuThreads threads(count);
    std::vector<int> visits(1000, 0);
    std::atomic<bool> numbered = true;
    threads.for_each(1000, [&](int64_t task, int thread) {
      ++visits[static_cast<size_t>(task)];
      if (thread < 0 || thread >= count) numbered = false;
    });
    EXPECT_EQ(std::accumulate(visits.begin(), visits.end(), 0), 1000);
    EXPECT_EQ(*std::min_element(visits.begin(), visits.end()), 1);
    EXPECT_TRUE(numbered);
  }
}

TEST(Threads, ErrorsReachTheCaller) {
  const cpu::CpuThreads threads(2);
  const auto fail = [](int64_t task, int) { check(task != 3, "task %d", task); };
  EXPECT_THROW(threads.for_each(8, fail), Error);
}

TEST(Threads, DenormalsAreFlushedInEveryTask) {
  const volatile float tiny = std::numeric_limits<float>::min();
  std::atomic<int> denormals = 0;
  cpu::CpuThreads(3).for_each(64, [&](int64_t, int) {
    if (tiny * 0.5f != 0.0f) ++denormals;
  });
  EXPECT_EQ(denormals, 0);
}

TEST(Backend, MemoryIsAlignedAndZero) {
  const auto backend = make_cpu_backend({.num_threads = 2});
  EXPECT_EQ(backend->description(), "cpu, 2 threads");
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{5000}, int64_t{9} << 20}) {
    const auto memory = backend->reserve(bytes);
    EXPECT_EQ(memory->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % 4096, 0u);
    EXPECT_TRUE(std::all_of(memory->data(), memory->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(Backend, TooMuchMemoryIsAnError) {
  const auto backend = make_cpu_backend({});
  try {
    backend->reserve(int64_t{1} << 60);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::internal);
    EXPECT_NE(std::string(error.what()).find("cannot reserve"), std::string::npos);
  }
}

TEST(Backend, FillAndCopies) {
  const auto backend = make_cpu_backend({.num_threads = 2});
  const auto memory = backend->reserve(1 << 20);
  backend->fill(memory->data(), 0x7FC00001, 1 << 20);
  std::vector<uint32_t> host(1 << 18);
  backend->copy_out(host.data(), memory->data(), 1 << 20);
  EXPECT_EQ(host, std::vector<uint32_t>(1 << 18, 0x7FC00001));
  host[5] = 42;
  backend->copy_in(memory->data() + 16, host.data() + 5, 4);
  EXPECT_EQ(reinterpret_cast<uint32_t*>(memory->data())[4], 42u);
}

TEST(Backend, RunsThroughTheVariant) {
  const auto backend = make_cpu_backend({.num_threads = 2});
  std::vector<Tensor> tensors = {normal({64, 32}, 1), empty({32})};
  const std::vector<TensorSpec> inputs = {tensors[0].spec()};
  const std::vector<TensorSpec> outputs = {tensors[1].spec()};
  const Op op = SumRows{};
  const int64_t bytes = backend->workspace_bytes(op, inputs, outputs);
  EXPECT_EQ(bytes, 32 * 4);
  Tensor workspace = empty({bytes / 4});
  const TensorView input = tensors[0].view();
  const TensorView output = tensors[1].view();
  backend->run(op, {{&input, 1}, {&output, 1}, workspace.words.data(), bytes}, Stream::compute);
  EXPECT_FALSE(std::isnan(tensors[1].at(31)));
  EXPECT_EQ(backend->workspace_bytes(Op{Add{}}, {}, {}), 0);
}

TEST(Backend, RefusesOtherDtypes) {
  const auto backend = make_cpu_backend({});
  const TensorView view{nullptr, {0}, DType::bf16};
  const Op op = Fill{0};
  EXPECT_THROW(backend->run(op, {{}, {&view, 1}}, Stream::compute), Error);
}

// A communicator whose all_reduce waits for a gate, then counts or fails.
class GatedCommunicator final : public SilentCommunicator {
 public:
  GatedCommunicator() : SilentCommunicator(1) {}
  void all_reduce(void*, int64_t count, DType) override {
    std::unique_lock lock(mutex);
    opened.wait(lock, [this] { return open; });
    if (count == failing_count) throw Error(ExitCode::peer_lost, "a peer is lost");
    order.push_back(count);
    thread = std::this_thread::get_id();
  }
  void open_gate() {
    const std::lock_guard lock(mutex);
    open = true;
    opened.notify_all();
  }

  std::mutex mutex;
  std::condition_variable opened;
  bool open = false;
  int64_t failing_count = 0;
  std::vector<int64_t> order;
  std::thread::id thread;
};

// All-reduces of 1, 2, ... elements.
struct Queue {
  explicit Queue(int64_t count) : memory(static_cast<size_t>(count) + 1) {
    for (int64_t i = 1; i <= count; ++i) views.push_back({memory.data(), {i}, DType::f32});
  }
  void put(Backend& backend, int64_t i) {
    const std::span<const TensorView> view(&views[static_cast<size_t>(i)], 1);
    backend.run(op, {view, view, nullptr, 0, &communicator}, Stream::communication);
  }
  const Op op = AllReduce{Axis::dp};
  std::vector<float> memory;
  std::vector<TensorView> views;
  GatedCommunicator communicator;
};

TEST(Backend, CommunicationRunsBesideAndInOrder) {
  Queue queue(20);
  const auto backend = make_cpu_backend({.overlap = true});
  for (int64_t i = 0; i < 20; ++i) queue.put(*backend, i);  // returns while the gate is shut
  EXPECT_EQ(backend->communication_count(), 20);
  queue.communicator.open_gate();
  backend->wait_for_communication(7);
  {
    const std::lock_guard lock(queue.communicator.mutex);
    EXPECT_GE(queue.communicator.order.size(), 7u);
  }
  backend->synchronize();
  std::vector<int64_t> expected(20);
  std::iota(expected.begin(), expected.end(), 1);
  EXPECT_EQ(queue.communicator.order, expected);
  EXPECT_NE(queue.communicator.thread, std::this_thread::get_id());
}

TEST(Backend, MoreThanTheRingHolds) {
  Queue queue(1000);
  const auto backend = make_cpu_backend({.overlap = true});
  queue.communicator.open_gate();
  for (int64_t i = 0; i < 1000; ++i) queue.put(*backend, i);
  backend->synchronize();
  EXPECT_EQ(queue.communicator.order.size(), 1000u);
}

TEST(Backend, WithoutOverlapOnTheCallingThread) {
  Queue queue(3);
  queue.communicator.open_gate();
  const auto backend = make_cpu_backend({.overlap = false});
  for (int64_t i = 0; i < 3; ++i) queue.put(*backend, i);
  EXPECT_EQ(queue.communicator.order.size(), 3u);
  EXPECT_EQ(queue.communicator.thread, std::this_thread::get_id());
  EXPECT_EQ(backend->communication_count(), 3);
  backend->synchronize();
}

TEST(Backend, CommunicationErrorsSurfaceAtTheWait) {
  Queue queue(20);
  queue.communicator.failing_count = 13;
  const auto backend = make_cpu_backend({.overlap = true});
  for (int64_t i = 10; i < 20; ++i) queue.put(*backend, i);  // 11, 12, then 13 fails
  queue.communicator.open_gate();
  try {
    backend->synchronize();
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::peer_lost);
  }
  EXPECT_EQ(queue.communicator.order, (std::vector<int64_t>{11, 12}));
  EXPECT_THROW(backend->wait_for_communication(1), Error);  // and stays
}

}  // namespace
}  // namespace caravan
