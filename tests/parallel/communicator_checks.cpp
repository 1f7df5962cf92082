// Expected values are computed on each rank from the formula of what the others contribute. Floats
// differ by orders of magnitude, so that a sum in another order than by rank has other bits.
#include "tests/parallel/communicator_checks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "runtime/error.h"

namespace caravan {
namespace {

using Bytes = std::vector<std::byte>;

// On both sides of what an implementation calls a small message.
constexpr std::array<int64_t, 8> kCounts = {0, 1, 2, 7, 64, 1001, 4097, 20'011};
constexpr int64_t kLargeCount = 1'200'001;  // f32: beyond the 4 MiB that MPI sums at a time

uint32_t noise(int rank, int64_t i) {
  const uint64_t mixed =
      (static_cast<uint64_t>(i) * 31 + static_cast<uint64_t>(rank) + 1) * 0x9e3779b97f4a7c15U;
  return static_cast<uint32_t>(mixed >> 32);
}

// In +-[2^-8, 2^8), spread evenly over the exponents.
float noisy_float(int rank, int64_t i) {
  const uint32_t word = noise(rank, i);
  const float mantissa = 1.0F + static_cast<float>(word & 0xffffU) / 65536.0F;
  const float value = std::ldexp(mantissa, static_cast<int>((word >> 16) % 16) - 8);
  return (word >> 31) != 0 ? -value : value;
}

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// The nearer neighbour among bf16 numbers, the even one when in the middle.
uint16_t nearest_bf16(float value) {
  const auto toward_zero = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  const auto away = static_cast<uint16_t>(toward_zero + 1);
  const double below = std::abs(static_cast<double>(value) - from_bf16(toward_zero));
  const double above = std::abs(static_cast<double>(from_bf16(away)) - value);
  if (below == above) return (toward_zero & 1U) == 0 ? toward_zero : away;
  return below < above ? toward_zero : away;
}

// Element i of what `rank` contributes, and of the sum over ranks 0 .. num_ranks - 1.
struct F32 {
  using Stored = float;
  static constexpr DType dtype = DType::f32;
  static Stored value(int rank, int64_t i) { return noisy_float(rank, i); }
  static Stored sum(int num_ranks, int64_t i) {
    float total = value(0, i);
    for (int rank = 1; rank < num_ranks; ++rank) total += value(rank, i);
    return total;
  }
};

struct I32 {
  using Stored = int32_t;
  static constexpr DType dtype = DType::i32;
  static Stored value(int rank, int64_t i) { return static_cast<int32_t>(noise(rank, i)); }
  static Stored sum(int num_ranks, int64_t i) {
    int64_t total = 0;
    for (int rank = 0; rank < num_ranks; ++rank) total += value(rank, i);
    return static_cast<int32_t>(total);  // wraps
  }
};

struct Bf16 {
  using Stored = uint16_t;
  static constexpr DType dtype = DType::bf16;
  static Stored value(int rank, int64_t i) { return nearest_bf16(noisy_float(rank, i)); }
  static Stored sum(int num_ranks, int64_t i) {
    float total = from_bf16(value(0, i));
    for (int rank = 1; rank < num_ranks; ++rank) total += from_bf16(value(rank, i));
    return nearest_bf16(total);
  }
};

// Bitwise: a float that only compares equal (0 and -0) is an error as well.
template <typename T>
void expect_same(std::span<const T> actual, std::span<const T> expected, const char* what) {
  check(actual.size() == expected.size(), "%s: %d elements, not %d", what, actual.size(),
        expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    check(std::memcmp(&actual[i], &expected[i], sizeof(T)) == 0,
          "%s: element %d of %d is %s, not %s", what, i, actual.size(), std::to_string(actual[i]),
          std::to_string(expected[i]));
  }
}

template <typename Type>
std::vector<typename Type::Stored> contribution(int rank, int64_t count) {
  std::vector<typename Type::Stored> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(Type::value(rank, i));
  return values;
}

template <typename Type>
std::vector<typename Type::Stored> expected_sums(int num_ranks, int64_t begin, int64_t count) {
  std::vector<typename Type::Stored> values;
  for (int64_t i = begin; i < begin + count; ++i) values.push_back(Type::sum(num_ranks, i));
  return values;
}

template <typename Type>
void check_all_reduce_of(Communicator& group, int64_t count) {
  std::vector<typename Type::Stored> data = contribution<Type>(group.rank(), count);
  group.all_reduce(data.data(), count, Type::dtype);
  expect_same<typename Type::Stored>(data, expected_sums<Type>(group.size(), 0, count),
                                     "all_reduce");
}

template <typename Type>
void check_all_reduce(Communicator& group) {
  for (const int64_t count : kCounts) check_all_reduce_of<Type>(group, count);
}

void check_large_all_reduce(Communicator& group) { check_all_reduce_of<F32>(group, kLargeCount); }

template <typename Type>
void check_reduce_scatter(Communicator& group) {
  using Stored = typename Type::Stored;
  for (const int64_t count : kCounts) {
    std::vector<Stored> send = contribution<Type>(group.rank(), count * group.size());
    const auto expected = expected_sums<Type>(group.size(), group.rank() * count, count);
    std::vector<Stored> recv(static_cast<size_t>(count));
    group.reduce_scatter(send.data(), recv.data(), count, Type::dtype);
    expect_same<Stored>(recv, expected, "reduce_scatter");
    Stored* const mine = send.data() + group.rank() * count;
    group.reduce_scatter(send.data(), mine, count, Type::dtype);
    expect_same<Stored>(std::span(mine, static_cast<size_t>(count)), expected,
                        "reduce_scatter in place");
  }
}

std::byte byte_of(int from, int to, int64_t i) {
  return static_cast<std::byte>(noise(from * 64 + to, i) >> 7);
}

// What `from` has for `to`.
Bytes message(int from, int to, int64_t size) {
  Bytes bytes;
  for (int64_t i = 0; i < size; ++i) bytes.push_back(byte_of(from, to, i));
  return bytes;
}

void append(Bytes& all, const Bytes& more) { all.insert(all.end(), more.begin(), more.end()); }

void check_all_gather(Communicator& group) {
  for (const int64_t size : kCounts) {
    const Bytes mine = message(group.rank(), 0, size);
    Bytes expected;
    for (int peer = 0; peer < group.size(); ++peer) append(expected, message(peer, 0, size));
    Bytes all(expected.size());
    group.all_gather(mine.data(), all.data(), size);
    check(all == expected, "all_gather of %d bytes", size);
    Bytes in_place(expected.size());
    std::byte* const part = in_place.data() + group.rank() * size;
    std::copy(mine.begin(), mine.end(), part);
    group.all_gather(part, in_place.data(), size);
    check(in_place == expected, "all_gather of %d bytes in place", size);
  }
}

void check_all_to_all(Communicator& group) {
  for (const int64_t size : kCounts) {
    Bytes send;
    Bytes expected;
    for (int peer = 0; peer < group.size(); ++peer) {
      append(send, message(group.rank(), peer, size));
      append(expected, message(peer, group.rank(), size));
    }
    Bytes recv(send.size());
    group.all_to_all(send.data(), recv.data(), size);
    check(recv == expected, "all_to_all of %d bytes", size);
  }
}

// Blocks of every size between each pair, also none at all.
void check_all_to_all_v(Communicator& group) {
  const auto size_of = [](int64_t unit, int from, int to) { return unit * ((from + 2 * to) % 3); };
  for (const int64_t unit : kCounts) {
    Bytes send, expected;
    std::vector<int64_t> send_bytes, recv_bytes;
    for (int peer = 0; peer < group.size(); ++peer) {
      send_bytes.push_back(size_of(unit, group.rank(), peer));
      recv_bytes.push_back(size_of(unit, peer, group.rank()));
      append(send, message(group.rank(), peer, send_bytes.back()));
      append(expected, message(peer, group.rank(), recv_bytes.back()));
    }
    Bytes recv(expected.size());
    group.all_to_all_v(send.data(), send_bytes, recv.data(), recv_bytes);
    check(recv == expected, "all_to_all_v of multiples of %d bytes", unit);
  }
}

void check_all_reduce_max(Communicator& group) {
  const auto at = static_cast<float>(group.rank());
  check(group.all_reduce_max(at) == static_cast<float>(group.size() - 1), "the largest rank");
  check(group.all_reduce_max(-at) == 0, "the largest of negative numbers");
}

void check_broadcast(Communicator& group) {
  for (int root = 0; root < group.size(); ++root) {
    for (const int64_t size : kCounts) {
      Bytes data = message(group.rank(), 1, size);
      group.broadcast(data.data(), size, root);
      check(data == message(root, 1, size), "broadcast of %d bytes from rank %d", size, root);
    }
  }
}

// A ring: every rank passes on what it got, starting with rank 0.
void check_send_recv(Communicator& group) {
  if (group.size() == 1) return;
  const int next = (group.rank() + 1) % group.size();
  const int previous = (group.rank() + group.size() - 1) % group.size();
  for (const int64_t size : kCounts) {
    Bytes data = message(0, 2, size);
    if (group.rank() == 0) group.send(data.data(), size, next);
    Bytes got(data.size());
    group.recv(got.data(), size, previous);
    check(got == data, "recv of %d bytes", size);
    if (group.rank() != 0) group.send(got.data(), size, next);
  }
}

// Keys in reverse order of rank, colors by parity.
void check_split(Communicator& group) {
  const int parity = group.rank() % 2;
  const auto half = group.split(parity, -group.rank());
  const int num_even = (group.size() + 1) / 2;
  const int expected_size = parity == 0 ? num_even : group.size() - num_even;
  check(half->size() == expected_size, "split: size %d, not %d", half->size(), expected_size);
  const int expected_rank = expected_size - 1 - group.rank() / 2;
  check(half->rank() == expected_rank, "split: rank %d, not %d", half->rank(), expected_rank);
  int32_t sum = group.rank();
  half->all_reduce(&sum, 1, DType::i32);
  int32_t expected_sum = 0;
  for (int rank = parity; rank < group.size(); rank += 2) expected_sum += rank;
  check(sum == expected_sum, "split: sum of ranks %d, not %d", sum, expected_sum);
  check_all_reduce<F32>(*half->split(0, half->rank()));
}

void check_helpers(Communicator& group) {
  const auto text_of = [](int rank) { return std::string(static_cast<size_t>(rank) * 3, 'a'); };
  const auto texts = gather_strings(group, text_of(group.rank()));
  check(std::ssize(texts) == group.size(), "gather_strings: %d strings", texts.size());
  for (int rank = 0; rank < group.size(); ++rank) {
    check(texts[static_cast<size_t>(rank)] == text_of(rank), "gather_strings: rank %d", rank);
  }
  const auto value_of = [](int rank) { return 0.1 / (rank + 1); };
  double expected = value_of(0);
  for (int rank = 1; rank < group.size(); ++rank) expected += value_of(rank);
  check(all_reduce_sum(group, value_of(group.rank())) == expected, "all_reduce_sum");
}

// Nobody leaves the barrier before the last one has come. The ranks share a machine and its clock.
void check_barrier(Communicator& group) {
  const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  for (int late = 0; late < group.size(); ++late) {
    if (group.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const int64_t came = now();
    group.barrier();
    const int64_t left = now();
    std::vector<int64_t> all_came(static_cast<size_t>(group.size()));
    group.all_gather(&came, all_came.data(), sizeof(came));
    const int64_t last = *std::max_element(all_came.begin(), all_came.end());
    check(left >= last, "barrier: rank %d left before rank %d came", group.rank(), late);
  }
}

// Two communicators of the same ranks, each used by its own thread, in no common order.
void check_two_threads(Communicator& group) {
  const auto first = group.split(0, group.rank());
  const auto second = group.split(0, group.rank());
  auto other = std::async(std::launch::async, [&] {
    check_all_gather(*second);
    check_reduce_scatter<Bf16>(*second);
    check_all_to_all(*second);
  });
  check_all_reduce<F32>(*first);
  check_broadcast(*first);
  other.get();
}

constexpr std::array kChecks = {
    CommunicatorCheck{"all_reduce_f32", check_all_reduce<F32>},
    CommunicatorCheck{"all_reduce_i32", check_all_reduce<I32>},
    CommunicatorCheck{"all_reduce_bf16", check_all_reduce<Bf16>},
    CommunicatorCheck{"all_reduce_large", check_large_all_reduce},
    CommunicatorCheck{"reduce_scatter_f32", check_reduce_scatter<F32>},
    CommunicatorCheck{"reduce_scatter_i32", check_reduce_scatter<I32>},
    CommunicatorCheck{"reduce_scatter_bf16", check_reduce_scatter<Bf16>},
    CommunicatorCheck{"all_gather", check_all_gather},
    CommunicatorCheck{"all_to_all", check_all_to_all},
    CommunicatorCheck{"all_to_all_v", check_all_to_all_v},
    CommunicatorCheck{"all_reduce_max", check_all_reduce_max},
    CommunicatorCheck{"broadcast", check_broadcast},
    CommunicatorCheck{"send_recv", check_send_recv},
    CommunicatorCheck{"split", check_split},
    CommunicatorCheck{"helpers", check_helpers},
    CommunicatorCheck{"barrier", check_barrier},
    CommunicatorCheck{"two_threads", check_two_threads},
};

}  // namespace

std::span<const CommunicatorCheck> communicator_checks() { return kChecks; }

}  // namespace caravan
