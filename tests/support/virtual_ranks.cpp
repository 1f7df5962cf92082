// All groups of a run share one mutex and one condition variable: slow, and easy to get right.
//
// A collective is: publish my call; barrier; read the buffers of the others into private memory;
// barrier; write my own buffers. Nobody writes what another may still read.
#include "tests/support/virtual_ranks.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>
#include <tuple>
#include <utility>

#include "parallel/rank_sum.h"
#include "runtime/error.h"

namespace caravan {
namespace {

struct Group;

// What a rank asks for. All ranks of the group must agree on `name`, `amount` and `detail`.
struct Call {
  const char* name = "";
  int64_t amount = 0;  // bytes or elements
  int detail = 0;      // dtype or root
  const void* data = nullptr;
  int color = 0;  // of split
  int key = 0;
};

// Shared by all threads of one run_ranks; everything in it and in its groups is under `mutex`.
struct Run {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<char> ended;  // by rank of the world
  std::exception_ptr error;
};

struct Group {
  Run& run;
  std::vector<int> members;  // ranks of the world
  size_t num_arrived = 0;
  int64_t generation = 0;  // barriers passed
  std::vector<Call> calls;
  std::vector<std::shared_ptr<Group>> children;          // by rank that made it
  std::vector<std::deque<std::vector<std::byte>>> mail;  // [from * size + to]

  Group(Run& of_run, std::vector<int> of_members)
      : run(of_run),
        members(std::move(of_members)),
        calls(members.size()),
        children(members.size()),
        mail(members.size() * members.size()) {}
};

class VirtualCommunicator final : public Communicator {
 public:
  VirtualCommunicator(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->members.size()); }
  std::unique_ptr<Communicator> split(int color, int key) override;
  void all_reduce(void* data, int64_t count, DType dtype) override;
  void all_gather(const void* send, void* recv, int64_t bytes) override;
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override;
  void all_to_all(const void* send, void* recv, int64_t bytes) override;
  void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                    std::span<const int64_t> recv_bytes) override;
  float all_reduce_max(float value) override;
  void broadcast(void* data, int64_t bytes, int root) override;
  void send(const void* data, int64_t bytes, int to) override;
  void recv(void* data, int64_t bytes, int from) override;
  void barrier() override;

 private:
  void meet();
  template <typename Ready>
  void wait(std::unique_lock<std::mutex>& lock, std::span<const int> needed, Ready ready);
  void begin(const Call& call);
  const std::byte* data_of(int peer) const;
  std::vector<std::byte> sum(int64_t offset, int64_t count, DType dtype) const;
  std::deque<std::vector<std::byte>>& mailbox(int from, int to);
  void check_peer(int peer, const char* call) const;

  std::shared_ptr<Group> group_;
  int rank_;
};

// Waits until ready(); throws when another rank failed, or one of the `needed` will never come.
template <typename Ready>
void VirtualCommunicator::wait(std::unique_lock<std::mutex>& lock, std::span<const int> needed,
                               Ready ready) {
  Run& run = group_->run;
  const auto is_lost = [&] {
    return std::any_of(needed.begin(), needed.end(),
                       [&](int member) { return run.ended[static_cast<size_t>(member)] != 0; });
  };
  run.changed.wait(lock, [&] { return ready() || run.error != nullptr || is_lost(); });
  if (ready()) return;
  check(run.error == nullptr, "another virtual rank failed");
  check(false, "rank %d waits in '%s' for a rank that has ended", rank_,
        group_->calls[static_cast<size_t>(rank_)].name);
}

void VirtualCommunicator::meet() {
  std::unique_lock lock(group_->run.mutex);
  check(group_->run.error == nullptr, "another virtual rank failed");
  const int64_t generation = group_->generation;
  if (++group_->num_arrived == group_->members.size()) {
    group_->num_arrived = 0;
    ++group_->generation;
    group_->run.changed.notify_all();
    return;
  }
  wait(lock, group_->members, [&] { return group_->generation != generation; });
}

// Publishes the call and returns when all ranks have published the same one.
void VirtualCommunicator::begin(const Call& call) {
  {
    const std::lock_guard lock(group_->run.mutex);
    group_->calls[static_cast<size_t>(rank_)] = call;
  }
  meet();
  const auto key = [](const Call& of) {
    return std::tuple(std::string_view(of.name), of.amount, of.detail);
  };
  const Call& first = group_->calls.front();
  for (const Call& other : group_->calls) {
    check(key(other) == key(first), "ranks disagree: '%s' of %d (%d) and '%s' of %d (%d)",
          first.name, first.amount, first.detail, other.name, other.amount, other.detail);
  }
}

const std::byte* VirtualCommunicator::data_of(int peer) const {
  return static_cast<const std::byte*>(group_->calls[static_cast<size_t>(peer)].data);
}

// The sum of `count` elements that begin `offset` bytes into everyone's published buffer.
std::vector<std::byte> VirtualCommunicator::sum(int64_t offset, int64_t count, DType dtype) const {
  std::vector<const void*> parts;
  for (int peer = 0; peer < size(); ++peer) parts.push_back(data_of(peer) + offset);
  std::vector<std::byte> result(static_cast<size_t>(count * size_bytes(dtype)));
  sum_in_rank_order(parts, result.data(), count, dtype);
  return result;
}

void copy_bytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

void VirtualCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  begin({.name = "all_reduce", .amount = count, .detail = static_cast<int>(dtype), .data = data});
  const std::vector<std::byte> result = sum(0, count, dtype);
  meet();
  copy_bytes(data, result.data(), std::ssize(result));
}

void VirtualCommunicator::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) {
  begin(
      {.name = "reduce_scatter", .amount = count, .detail = static_cast<int>(dtype), .data = send});
  const std::vector<std::byte> result = sum(rank_ * count * size_bytes(dtype), count, dtype);
  meet();
  copy_bytes(recv, result.data(), std::ssize(result));
}

// In place the ranks write only what nobody reads: the parts of the others.
void VirtualCommunicator::all_gather(const void* send, void* recv, int64_t bytes) {
  begin({.name = "all_gather", .amount = bytes, .data = send});
  auto* const to = static_cast<std::byte*>(recv);
  for (int peer = 0; peer < size(); ++peer) copy_bytes(to + peer * bytes, data_of(peer), bytes);
  meet();
}

void VirtualCommunicator::all_to_all(const void* send, void* recv, int64_t bytes) {
  begin({.name = "all_to_all", .amount = bytes, .data = send});
  auto* const to = static_cast<std::byte*>(recv);
  for (int peer = 0; peer < size(); ++peer) {
    copy_bytes(to + peer * bytes, data_of(peer) + rank_ * bytes, bytes);
  }
  meet();
}

void VirtualCommunicator::all_to_all_v(const void* send, std::span<const int64_t> send_bytes,
                                       void* recv, std::span<const int64_t> recv_bytes) {
  struct Sent {
    const std::byte* data;
    std::span<const int64_t> bytes;
  };
  const Sent mine{static_cast<const std::byte*>(send), send_bytes};
  begin({.name = "all_to_all_v", .data = &mine});
  auto* to = static_cast<std::byte*>(recv);
  for (int peer = 0; peer < size(); ++peer) {
    const auto& theirs = *reinterpret_cast<const Sent*>(data_of(peer));
    const int64_t* const blocks = theirs.bytes.data();
    const int64_t bytes = blocks[rank_];
    check(bytes == recv_bytes[static_cast<size_t>(peer)],
          "all_to_all_v: rank %d sends %d bytes to rank %d, which expects %d", peer, bytes, rank_,
          recv_bytes[static_cast<size_t>(peer)]);
    copy_bytes(to, theirs.data + std::accumulate(blocks, blocks + rank_, int64_t{0}), bytes);
    to += bytes;
  }
  meet();
}

float VirtualCommunicator::all_reduce_max(float value) {
  begin({.name = "all_reduce_max", .data = &value});
  float largest = -std::numeric_limits<float>::infinity();
  for (int peer = 0; peer < size(); ++peer) {
    largest = std::fmax(largest, *reinterpret_cast<const float*>(data_of(peer)));
  }
  meet();
  return largest;
}

void VirtualCommunicator::broadcast(void* data, int64_t bytes, int root) {
  check_peer(root, "broadcast");
  begin({.name = "broadcast", .amount = bytes, .detail = root, .data = data});
  copy_bytes(data, data_of(root), bytes);
  meet();
}

void VirtualCommunicator::barrier() {
  begin({.name = "barrier"});
  meet();  // until all have compared their calls
}

void VirtualCommunicator::check_peer(int peer, const char* call) const {
  check(peer >= 0 && peer < size(), "%s: rank %d is not in a group of %d", call, peer, size());
}

std::deque<std::vector<std::byte>>& VirtualCommunicator::mailbox(int from, int to) {
  return group_->mail[static_cast<size_t>(from * size() + to)];
}

void VirtualCommunicator::send(const void* data, int64_t bytes, int to) {
  check_peer(to, "send");
  const auto* const first = static_cast<const std::byte*>(data);
  const std::lock_guard lock(group_->run.mutex);
  mailbox(rank_, to).emplace_back(first, first + bytes);
  group_->run.changed.notify_all();
}

void VirtualCommunicator::recv(void* data, int64_t bytes, int from) {
  check_peer(from, "recv");
  std::unique_lock lock(group_->run.mutex);
  group_->calls[static_cast<size_t>(rank_)] = {.name = "recv"};
  auto& mail = mailbox(from, rank_);
  wait(lock, std::span(group_->members).subspan(static_cast<size_t>(from), 1),
       [&] { return !mail.empty(); });
  check(std::ssize(mail.front()) == bytes, "recv of %d bytes, but rank %d sent %d", bytes, from,
        std::ssize(mail.front()));
  copy_bytes(data, mail.front().data(), bytes);
  mail.pop_front();
}

std::unique_ptr<Communicator> VirtualCommunicator::split(int color, int key) {
  begin({.name = "split", .color = color, .key = key});
  std::vector<int> peers;  // ranks of this group that share the color
  for (int peer = 0; peer < size(); ++peer) {
    if (group_->calls[static_cast<size_t>(peer)].color == color) peers.push_back(peer);
  }
  std::stable_sort(peers.begin(), peers.end(), [&](int a, int b) {
    return group_->calls[static_cast<size_t>(a)].key < group_->calls[static_cast<size_t>(b)].key;
  });
  const auto first = static_cast<size_t>(peers.front());
  if (rank_ == peers.front()) {
    std::vector<int> members;
    for (const int peer : peers) members.push_back(group_->members[static_cast<size_t>(peer)]);
    group_->children[first] = std::make_shared<Group>(group_->run, members);
  }
  meet();
  auto child = group_->children[first];
  meet();
  const auto position = std::find(peers.begin(), peers.end(), rank_) - peers.begin();
  return std::make_unique<VirtualCommunicator>(std::move(child), static_cast<int>(position));
}

void run_rank(const std::shared_ptr<Group>& world, int rank,
              const std::function<void(Communicator&)>& body) {
  std::exception_ptr error;
  try {
    VirtualCommunicator communicator(world, rank);
    body(communicator);
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(world->run.mutex);
  if (world->run.error == nullptr) world->run.error = error;
  world->run.ended[static_cast<size_t>(rank)] = 1;
  world->run.changed.notify_all();
}

}  // namespace

void run_ranks(int num_ranks, const std::function<void(Communicator&)>& body) {
  check(num_ranks > 0, "run_ranks of %d ranks", num_ranks);
  Run run;
  run.ended.resize(static_cast<size_t>(num_ranks));
  std::vector<int> members;
  for (int rank = 0; rank < num_ranks; ++rank) members.push_back(rank);
  const auto world = std::make_shared<Group>(run, members);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] { run_rank(world, rank, body); });
  }
  threads.clear();  // joins
  if (run.error != nullptr) std::rethrow_exception(run.error);
}

}  // namespace caravan
