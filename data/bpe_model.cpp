#include "data/bpe_model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <queue>

#include "data/byte_alphabet.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// Up to this many symbols the pair to merge is looked for by going over all of them.
constexpr size_t kShortPiece = 64;
constexpr size_t kMaxPieceBytes = size_t{1} << 30;

uint64_t mix(uint64_t value) {
  value *= 0x9E3779B97F4A7C15u;
  return value ^ value >> 32;
}

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = bytes.size() * 0x9E3779B97F4A7C15u;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, 8);
    hash = mix(hash ^ word);
  }
  uint64_t word = 0;
  for (; i < bytes.size(); ++i) word = word << 8 | static_cast<uint8_t>(bytes[i]);
  return mix(hash ^ word);
}

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Bytes that no valid UTF-8 has need no entry.
bool occurs_in_text(int byte) { return byte < 0xC0 || (byte >= 0xC2 && byte <= 0xF4); }

}  // namespace

BpeCache::BpeCache() : entries_(kEntries) {}

BpeModel::BpeModel(const TokenizerJson& json, const std::string& path) {
  read_bytes(json, path);
  read_merges(json);
}

void BpeModel::read_bytes(const TokenizerJson& json, const std::string& path) {
  std::vector<bool> is_text(json.names.size());
  for (const std::string& name : json.names) {
    std::optional<std::string> bytes = bytes_of_alphabet(name);
    is_text[bytes_.size()] = bytes.has_value() && !name.empty();
    bytes_.push_back(bytes ? std::move(*bytes) : name);
  }
  byte_ids_.assign(256, -1);
  for (size_t id = 0; id < bytes_.size(); ++id) {
    if (is_text[id] && bytes_[id].size() == 1) {
      byte_ids_[static_cast<uint8_t>(bytes_[id][0])] = static_cast<int32_t>(id);
    }
    if (is_text[id] && json.ignore_merges) whole_.emplace(bytes_[id], static_cast<int32_t>(id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids_[static_cast<size_t>(byte)] >= 0 || !occurs_in_text(byte)) continue;
    throw data_error(absl::StrFormat(
        "%s: model.vocab has no entry for the byte 0x%02X: text with it would be lost", path,
        byte));
  }
}

void BpeModel::read_merges(const TokenizerJson& json) {
  slots_.resize(std::bit_ceil(2 * json.merges.size() + 2));
  for (size_t rank = 0; rank < json.merges.size(); ++rank) {
    const uint64_t pair = pair_of(json.merges[rank].first, json.merges[rank].second);
    size_t at = mix(pair) & (slots_.size() - 1);
    while (slots_[at].pair != pair && slots_[at].pair != UINT64_MAX) {
      at = (at + 1) & (slots_.size() - 1);
    }
    // A pair that is there twice has the rank of the last.
    slots_[at] = {pair,
                  static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(json.merged[rank])};
  }
}

uint64_t BpeModel::merge_of(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t at = mix(pair) & (slots_.size() - 1);
  while (slots_[at].pair != pair) {
    if (slots_[at].pair == UINT64_MAX) return kNoMerge;
    at = (at + 1) & (slots_.size() - 1);
  }
  return slots_[at].merge;
}

void BpeModel::encode(std::string_view piece, BpeCache& cache, std::vector<int32_t>& ids) const {
  if (piece.size() > BpeCache::kMaxBytes) return encode_anew(piece, cache, ids);
  BpeCache::Entry& entry = cache.entries_[hash_bytes(piece) & (BpeCache::kEntries - 1)];
  const bool is_known =
      entry.num_bytes == piece.size() && std::memcmp(entry.bytes, piece.data(), piece.size()) == 0;
  if (!is_known) {
    const size_t before = ids.size();
    encode_anew(piece, cache, ids);
    const size_t count = ids.size() - before;
    if (count > BpeCache::kMaxIds) return;
    entry.num_bytes = static_cast<uint8_t>(piece.size());
    entry.num_ids = static_cast<uint8_t>(count);
    std::memcpy(entry.bytes, piece.data(), piece.size());
    std::copy(ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end(), entry.ids);
    return;
  }
  if (entry.num_ids == 1) return ids.push_back(entry.ids[0]);
  ids.insert(ids.end(), entry.ids, entry.ids + entry.num_ids);
}

void BpeModel::encode_anew(std::string_view piece, BpeCache& cache,
                           std::vector<int32_t>& ids) const {
  if (!whole_.empty()) {
    const auto found = whole_.find(piece);
    if (found != whole_.end()) return ids.push_back(found->second);
  }
  check(piece.size() <= kMaxPieceBytes, "bpe: a piece of %d bytes", piece.size());
  if (piece.size() <= kShortPiece) return merge_short(piece, cache, ids);
  merge_long(piece, cache, ids);
}

void BpeModel::merge_short(std::string_view piece, BpeCache& cache,
                           std::vector<int32_t>& ids) const {
  std::vector<int32_t>& symbols = cache.ids_;
  std::vector<uint64_t>& merges = cache.ranks_;  // of each symbol with the next one
  symbols.clear();
  merges.clear();
  for (const char byte : piece) symbols.push_back(byte_ids_[static_cast<uint8_t>(byte)]);
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    merges.push_back(merge_of(symbols[i], symbols[i + 1]));
  }
  while (!merges.empty()) {
    const auto lowest = std::min_element(merges.begin(), merges.end());
    if (*lowest == kNoMerge) break;
    const auto at = static_cast<size_t>(lowest - merges.begin());
    symbols[at] = static_cast<int32_t>(static_cast<uint32_t>(*lowest));
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    merges.erase(lowest);
    if (at < merges.size()) merges[at] = merge_of(symbols[at], symbols[at + 1]);
    if (at > 0) merges[at - 1] = merge_of(symbols[at - 1], symbols[at]);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

// n log n: a heap of pairs. A pair whose symbols have changed since is recognised by its merge.
void BpeModel::merge_long(std::string_view piece, BpeCache& cache,
                          std::vector<int32_t>& ids) const {
  struct Candidate {
    uint64_t merge;
    int32_t left, right;
    bool operator<(const Candidate& other) const {
      return std::pair(other.merge, other.left) < std::pair(merge, left);
    }
  };
  std::vector<BpeCache::Symbol>& symbols = cache.symbols_;
  std::priority_queue<Candidate> queue;
  const auto add = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const uint64_t merge =
        merge_of(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge != kNoMerge) queue.push({merge, left, right});
  };
  symbols.clear();
  for (const char byte : piece) {
    const auto number = static_cast<int32_t>(symbols.size());
    symbols.push_back({byte_ids_[static_cast<uint8_t>(byte)], number - 1, number + 1});
  }
  symbols.back().next = -1;
  for (int32_t i = 0; i + 1 < std::ssize(symbols); ++i) add(i, i + 1);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    BpeCache::Symbol& left = symbols[static_cast<size_t>(top.left)];
    BpeCache::Symbol& right = symbols[static_cast<size_t>(top.right)];
    if (left.id < 0 || left.next != top.right || merge_of(left.id, right.id) != top.merge) continue;
    left.id = static_cast<int32_t>(static_cast<uint32_t>(top.merge));
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.left;
    add(left.previous, top.left);
    add(top.left, left.next);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
  if (symbols.capacity() > (size_t{1} << 16))
    symbols = {};  // one long piece is no reason to keep it
}

}  // namespace caravan
