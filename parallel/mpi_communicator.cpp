// Collectives from two primitives: exchange (a message to and from each peer, all at once) and
// sum_in_rank_order. Every MPI call that may have to wait is a nonblocking one and a polled wait.
// Large collectives begin with a barrier: ranks that start together poll eagerly together, which
// halved the time of a sum beside busy compute threads.
#include "parallel/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <exception>
#include <limits>
#include <numeric>
#include <span>
#include <thread>
#include <vector>

#include "parallel/rank_sum.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using std::chrono::steady_clock;

// A wait spins for the first, then sleeps between polls, and never yields: a thread that wakes up
// gets the core at once, one that has yielded it waits for the compute thread's whole time slice.
constexpr auto kEagerTime = std::chrono::microseconds(100);
constexpr auto kPollInterval = std::chrono::microseconds(50);
constexpr int64_t kSegmentBytes = int64_t{4} << 20;    // of a sum: fits the cache with its copies
constexpr int64_t kMinPieceBytes = int64_t{64} << 10;  // shorter messages are bound by latency
constexpr int64_t kSmallBytes = int64_t{16} << 10;     // per rank: gather everything, add locally
constexpr int kMessageTag = 1;

void wait(std::span<MPI_Request> requests) {
  const auto start = steady_clock::now();
  for (;;) {
    int done = 0;
    check_mpi(
        MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
        "waiting for other ranks");
    if (done != 0) return;
    if (steady_clock::now() - start > kEagerTime) std::this_thread::sleep_for(kPollInterval);
  }
}

void wait(MPI_Request request) { wait(std::span(&request, 1)); }

int64_t automatic_piece_bytes(int num_ranks) {
  return std::max(kSegmentBytes / num_ranks, kMinPieceBytes) / 64 * 64;
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm owned, const MpiCommunicatorOptions& options);
  ~MpiCommunicator() override;
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
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
  void check_peer(int peer, const char* call) const;
  template <typename Outgoing, typename Incoming>
  void exchange(Outgoing outgoing, Incoming incoming);
  template <typename Chunk>
  void for_chunks(int64_t bytes, Chunk chunk) const;
  void gather_small(const void* send, void* recv, int64_t bytes);
  void all_reduce_small(void* data, int64_t count, DType dtype);
  void all_reduce_segment(std::byte* data, int64_t count, DType dtype);
  void sum_slots(const void* mine, void* out, int64_t count, DType dtype);
  void prepare_workspace();
  // Where the piece of a peer arrives before it is added.
  std::byte* slot(int peer) { return workspace_.data() + peer * piece_bytes_; }

  MPI_Comm comm_;
  MpiCommunicatorOptions options_;
  int rank_ = 0;
  int size_ = 1;
  int64_t piece_bytes_ = 0;
  std::vector<std::byte> workspace_;  // size() slots of piece_bytes_, from the first sum on
  std::vector<const void*> parts_;    // by rank: what sum_slots adds
  std::vector<MPI_Request> requests_;
};

MpiCommunicator::MpiCommunicator(MPI_Comm owned, const MpiCommunicatorOptions& options)
    : comm_(owned), options_(options) {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  piece_bytes_ = options.piece_bytes > 0 ? options.piece_bytes : automatic_piece_bytes(size_);
  requests_.resize(2 * static_cast<size_t>(size_));
}

MpiCommunicator::~MpiCommunicator() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // Freeing is collective. While an exception passes by, the peers are not known to join.
  if (finalized == 0 && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

// MpiCommunicator has two ranks or more: a group of one needs no MPI.
std::unique_ptr<Communicator> own(MPI_Comm comm, const MpiCommunicatorOptions& options) {
  int size = 0;
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  if (size > 1) return std::make_unique<MpiCommunicator>(comm, options);
  MPI_Comm_free(&comm);
  return make_self_communicator();
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  check(color >= 0, "split: color %d is negative", color);
  MPI_Comm group = MPI_COMM_NULL;
  barrier();  // MPI_Comm_split spins while it waits
  check_mpi(MPI_Comm_split(comm_, color, key, &group), "MPI_Comm_split");
  return own(group, options_);
}

void MpiCommunicator::barrier() {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier");
  wait(request);
}

void MpiCommunicator::check_peer(int peer, const char* call) const {
  check(peer >= 0 && peer < size_, "%s: rank %d is not in a group of %d", call, peer, size_);
}

// One message to and one from each peer, all at once; outgoing(peer) and incoming(peer) are spans
// of bytes; both sides leave out empty ones. Peers are taken in an order that spreads the load:
// first the next rank, and so on.
template <typename Outgoing, typename Incoming>
void MpiCommunicator::exchange(Outgoing outgoing, Incoming incoming) {
  size_t used = 0;
  for (int step = 1; step < size_; ++step) {
    const int from = (rank_ + size_ - step) % size_;
    const std::span<std::byte> in = incoming(from);
    if (in.empty()) continue;
    check_mpi(MPI_Irecv(in.data(), static_cast<int>(in.size()), MPI_BYTE, from, kMessageTag, comm_,
                        &requests_[used++]),
              "MPI_Irecv");
  }
  for (int step = 1; step < size_; ++step) {
    const int to = (rank_ + step) % size_;
    const std::span<const std::byte> out = outgoing(to);
    if (out.empty()) continue;
    check_mpi(MPI_Isend(out.data(), static_cast<int>(out.size()), MPI_BYTE, to, kMessageTag, comm_,
                        &requests_[used++]),
              "MPI_Isend");
  }
  wait(std::span(requests_).first(used));
}

// chunk(offset, length) for parts of at most max_message_bytes.
template <typename Chunk>
void MpiCommunicator::for_chunks(int64_t bytes, Chunk chunk) const {
  for (int64_t offset = 0; offset < bytes; offset += options_.max_message_bytes) {
    chunk(offset, static_cast<size_t>(std::min(options_.max_message_bytes, bytes - offset)));
  }
}

void MpiCommunicator::prepare_workspace() {
  if (!workspace_.empty()) return;
  workspace_.resize(static_cast<size_t>(piece_bytes_ * size_));
  parts_.resize(static_cast<size_t>(size_));
}

// Adds this rank's part and what the peers put into the slots.
void MpiCommunicator::sum_slots(const void* mine, void* out, int64_t count, DType dtype) {
  for (int peer = 0; peer < size_; ++peer) parts_[static_cast<size_t>(peer)] = slot(peer);
  parts_[static_cast<size_t>(rank_)] = mine;
  sum_in_rank_order(parts_, out, count, dtype);
}

void MpiCommunicator::gather_small(const void* send, void* recv, int64_t bytes) {
  const int count = static_cast<int>(bytes);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(send, count, MPI_BYTE, recv, count, MPI_BYTE, comm_, &request),
            "MPI_Iallgather");
  wait(request);
}

void MpiCommunicator::all_reduce_small(void* data, int64_t count, DType dtype) {
  const int64_t bytes = count * size_bytes(dtype);
  gather_small(data, workspace_.data(), bytes);
  for (int peer = 0; peer < size_; ++peer) {
    parts_[static_cast<size_t>(peer)] = workspace_.data() + peer * bytes;
  }
  sum_in_rank_order(parts_, data, count, dtype);
}

// Rank p owns the p-th part of the segment: it gets that part from all, adds, gives it to all.
void MpiCommunicator::all_reduce_segment(std::byte* data, int64_t count, DType dtype) {
  const int64_t element_bytes = size_bytes(dtype);
  const int64_t part_elements = (count + size_ - 1) / size_;
  const auto part = [&](int peer) {
    const int64_t begin = std::min(count, peer * part_elements);
    const int64_t end = std::min(count, begin + part_elements);
    return std::span(data + begin * element_bytes,
                     static_cast<size_t>((end - begin) * element_bytes));
  };
  const std::span<std::byte> mine = part(rank_);
  exchange(part, [&](int peer) { return std::span(slot(peer), mine.size()); });
  sum_slots(mine.data(), mine.data(), std::ssize(mine) / element_bytes, dtype);
  exchange([&](int) { return mine; }, part);
}

void MpiCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  if (count == 0) return;
  prepare_workspace();
  const int64_t element_bytes = size_bytes(dtype);
  if (count * element_bytes <= std::min(kSmallBytes, piece_bytes_)) {
    return all_reduce_small(data, count, dtype);
  }
  barrier();
  const int64_t segment = piece_bytes_ / element_bytes * size_;
  auto* const bytes = static_cast<std::byte*>(data);
  for (int64_t begin = 0; begin < count; begin += segment) {
    all_reduce_segment(bytes + begin * element_bytes, std::min(segment, count - begin), dtype);
  }
}

void MpiCommunicator::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) {
  if (count == 0) return;
  prepare_workspace();
  barrier();
  const int64_t element_bytes = size_bytes(dtype);
  const int64_t piece = piece_bytes_ / element_bytes;
  const auto* const from = static_cast<const std::byte*>(send);
  auto* const to = static_cast<std::byte*>(recv);
  for (int64_t begin = 0; begin < count; begin += piece) {
    const int64_t length = std::min(piece, count - begin);
    const auto length_bytes = static_cast<size_t>(length * element_bytes);
    const auto block = [&](int peer) {
      return std::span(from + (peer * count + begin) * element_bytes, length_bytes);
    };
    exchange(block, [&](int peer) { return std::span(slot(peer), length_bytes); });
    sum_slots(block(rank_).data(), to + begin * element_bytes, length, dtype);
  }
}

void MpiCommunicator::all_gather(const void* send, void* recv, int64_t bytes) {
  if (bytes == 0) return;
  auto* const all = static_cast<std::byte*>(recv);
  std::byte* const mine = all + rank_ * bytes;
  const bool in_place = send == mine;
  if (bytes <= std::min(kSmallBytes, options_.max_message_bytes)) {
    return gather_small(in_place ? MPI_IN_PLACE : send, recv, bytes);
  }
  barrier();
  if (!in_place) std::memcpy(mine, send, static_cast<size_t>(bytes));
  for_chunks(bytes, [&](int64_t offset, size_t length) {
    exchange([&](int) { return std::span(mine + offset, length); },
             [&](int peer) { return std::span(all + peer * bytes + offset, length); });
  });
}

void MpiCommunicator::all_to_all(const void* send, void* recv, int64_t bytes) {
  if (bytes == 0) return;
  barrier();
  const auto* const from = static_cast<const std::byte*>(send);
  auto* const to = static_cast<std::byte*>(recv);
  std::memcpy(to + rank_ * bytes, from + rank_ * bytes, static_cast<size_t>(bytes));
  for_chunks(bytes, [&](int64_t offset, size_t length) {
    exchange([&](int peer) { return std::span(from + peer * bytes + offset, length); },
             [&](int peer) { return std::span(to + peer * bytes + offset, length); });
  });
}

void MpiCommunicator::all_to_all_v(const void* send, std::span<const int64_t> send_bytes,
                                   void* recv, std::span<const int64_t> recv_bytes) {
  barrier();
  const auto begin_of = [](std::span<const int64_t> bytes, int peer) {
    return std::accumulate(bytes.begin(), bytes.begin() + peer, int64_t{0});
  };
  const auto size_of = [&](std::span<const int64_t> bytes, int peer, int64_t offset) {
    const int64_t left = bytes[static_cast<size_t>(peer)] - offset;
    return static_cast<size_t>(std::clamp<int64_t>(left, 0, options_.max_message_bytes));
  };
  const auto* const from = static_cast<const std::byte*>(send);
  auto* const to = static_cast<std::byte*>(recv);
  const auto own = static_cast<size_t>(send_bytes[static_cast<size_t>(rank_)]);
  check(recv_bytes[static_cast<size_t>(rank_)] == send_bytes[static_cast<size_t>(rank_)],
        "all_to_all_v: rank %d sends itself other bytes than it receives", rank_);
  if (own > 0)
    std::memcpy(to + begin_of(recv_bytes, rank_), from + begin_of(send_bytes, rank_), own);
  const int64_t longest =
      std::max(*std::ranges::max_element(send_bytes), *std::ranges::max_element(recv_bytes));
  for (int64_t offset = 0; offset < longest; offset += options_.max_message_bytes) {
    exchange(
        [&](int peer) {
          return std::span(from + begin_of(send_bytes, peer) + offset,
                           size_of(send_bytes, peer, offset));
        },
        [&](int peer) {
          return std::span(to + begin_of(recv_bytes, peer) + offset,
                           size_of(recv_bytes, peer, offset));
        });
  }
}

float MpiCommunicator::all_reduce_max(float value) {
  prepare_workspace();
  gather_small(&value, workspace_.data(), sizeof(value));
  float largest = -std::numeric_limits<float>::infinity();
  for (int peer = 0; peer < size_; ++peer) {
    float theirs = 0;
    std::memcpy(&theirs, workspace_.data() + peer * static_cast<int64_t>(sizeof(theirs)),
                sizeof(theirs));
    largest = std::fmax(largest, theirs);
  }
  return largest;
}

void MpiCommunicator::broadcast(void* data, int64_t bytes, int root) {
  check_peer(root, "broadcast");
  auto* const at = static_cast<std::byte*>(data);
  for_chunks(bytes, [&](int64_t offset, size_t length) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(at + offset, static_cast<int>(length), MPI_BYTE, root, comm_, &request),
              "MPI_Ibcast");
    wait(request);
  });
}

void MpiCommunicator::send(const void* data, int64_t bytes, int to) {
  check_peer(to, "send");
  const auto* const at = static_cast<const std::byte*>(data);
  for_chunks(bytes, [&](int64_t offset, size_t length) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(at + offset, static_cast<int>(length), MPI_BYTE, to, kMessageTag, comm_,
                        &request),
              "MPI_Isend");
    wait(request);
  });
}

void MpiCommunicator::recv(void* data, int64_t bytes, int from) {
  check_peer(from, "recv");
  auto* const at = static_cast<std::byte*>(data);
  for_chunks(bytes, [&](int64_t offset, size_t length) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(at + offset, static_cast<int>(length), MPI_BYTE, from, kMessageTag, comm_,
                        &request),
              "MPI_Irecv");
    wait(request);
  });
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const MpiCommunicatorOptions& options) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  return own(copy, options);
}

int64_t mpi_workspace_bytes(int num_ranks) {
  return num_ranks == 1 ? 0 : automatic_piece_bytes(num_ranks) * num_ranks;
}

void check_mpi(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char reason[MPI_MAX_ERROR_STRING] = "unknown MPI error";
  int length = 0;
  MPI_Error_string(status, reason, &length);
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  throw Error(ExitCode::peer_lost,
              absl::StrFormat("rank %d: %s failed: %s. Another process has probably died: look for "
                              "its message, then start again to resume from the last checkpoint",
                              rank, call, reason));
}

}  // namespace caravan
