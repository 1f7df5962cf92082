#include "runtime/passes/place_blocks.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <random>

namespace caravan {
namespace {

constexpr int64_t kNegligible = 64 << 10;  // bytes: no second of search is worth so few

// Offsets of blocks in one order: each at the lowest place that is free over its lifetime.
int64_t place_in_order(std::vector<Block>& blocks, const std::vector<size_t>& order) {
  std::vector<const Block*> placed;  // by offset
  int64_t total = 0;
  for (const size_t i : order) {
    Block& block = blocks[i];
    int64_t offset = 0;
    for (const Block* other : placed) {
      if (other->last_step < block.first_step || block.last_step < other->first_step) continue;
      if (other->offset >= offset + block.bytes) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    block.offset = offset;
    total = std::max(total, offset + block.bytes);
    const auto at = std::ranges::upper_bound(placed, offset, {}, &Block::offset);
    placed.insert(at, &block);
  }
  return total;
}

// Places blocks in one order after another and keeps the best result. First fit depends on the
// order alone; whoever reaches `lower_bound`, the bytes live at the peak, has nothing left to gain.
class Placer {
 public:
  Placer(std::vector<Block>& blocks, int64_t lower_bound)
      : blocks_(blocks), lower_bound_(lower_bound) {}

  int64_t place() {
    const std::vector<std::vector<size_t>> orders = sorted_orders();
    for (const auto& order : orders) attempt(order);
    for (const auto& order : orders) climb(order, orders.size());
    blocks_ = std::move(best_);
    return best_bytes_;
  }

 private:
  // Within a thousandth or kNegligible: a longer search costs more than it saves.
  bool is_good() const {
    const int64_t slack = std::max(lower_bound_ / 1000, kNegligible);
    return best_bytes_ >= 0 && best_bytes_ <= lower_bound_ + slack;
  }

  int64_t attempt(const std::vector<size_t>& order) {
    const int64_t bytes = place_in_order(blocks_, order);
    if (best_bytes_ < 0 || bytes < best_bytes_) {
      best_bytes_ = bytes;
      best_ = blocks_;
    }
    return bytes;
  }

  std::vector<std::vector<size_t>> sorted_orders() const {
    using Key = std::function<int64_t(const Block&)>;
    const auto life = [](const Block& b) { return int64_t{b.last_step} - b.first_step + 1; };
    const std::array<Key, 5> keys = {
        [](const Block& b) { return -b.bytes; },
        [&](const Block& b) { return -b.bytes * life(b); },
        [&](const Block& b) { return -life(b); },
        [](const Block& b) { return int64_t{b.first_step}; },
        [](const Block& b) { return -int64_t{b.last_step}; },
    };
    std::vector<size_t> order(blocks_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::vector<std::vector<size_t>> orders;
    for (const Key& key : keys) {
      std::ranges::stable_sort(order, {}, [&](size_t i) { return key(blocks_[i]); });
      orders.push_back(order);
    }
    return orders;
  }

  // Hill climbing: what sticks out at the top is placed earlier. Seeded: the same on every rank.
  void climb(std::vector<size_t> order, size_t num_climbs) {
    constexpr size_t kMaxComparisons = 400'000'000;  // of all climbs: about a second
    constexpr size_t kMaxAttempts = 4000;            // of one
    const size_t n = blocks_.size();
    const size_t num_attempts =
        std::min(kMaxAttempts, kMaxComparisons / num_climbs / (n * n / 2 + 1));
    std::mt19937 random(1);
    if (is_good()) return;
    int64_t bytes = attempt(order);
    for (size_t i = 0; i < num_attempts && !is_good(); ++i) {
      std::vector<size_t> next = promoted(order, random);
      const int64_t next_bytes = attempt(next);
      if (next_bytes > bytes) continue;
      bytes = next_bytes;
      order = std::move(next);
    }
  }

  // A block that reached beyond the bound in the last attempt, kept or not, moves to a random
  // earlier place.
  std::vector<size_t> promoted(std::vector<size_t> order, std::mt19937& random) const {
    std::vector<size_t> top;  // positions in the order
    for (size_t position = 1; position < order.size(); ++position) {
      const Block& block = blocks_[order[position]];
      if (block.offset + block.bytes > lower_bound_) top.push_back(position);
    }
    if (top.empty()) return order;
    const auto begin = order.begin();
    const size_t from = top[random() % top.size()];
    const size_t to = random() % from;
    std::rotate(begin + static_cast<ptrdiff_t>(to), begin + static_cast<ptrdiff_t>(from),
                begin + static_cast<ptrdiff_t>(from) + 1);
    return order;
  }

  std::vector<Block>& blocks_;
  int64_t lower_bound_;
  std::vector<Block> best_;
  int64_t best_bytes_ = -1;
};

}  // namespace

int64_t place_blocks(std::vector<Block>& blocks, int64_t lower_bound) {
  return Placer(blocks, lower_bound).place();
}

}  // namespace caravan
