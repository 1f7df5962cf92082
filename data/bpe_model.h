// The merges of a byte-level BPE: bytes of one piece of text to ids. The pair of lowest rank is
// merged first, of equal ones the leftmost. Knows nothing of text or of where pieces end.
//
// Threads: const members with a Cache per thread. Errors: data_error, one line.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text_map.h"
#include "data/tokenizer_json.h"

namespace caravan {

// Ids of short pieces that were encoded before, and memory to work in: 2 MiB.
class BpeCache {
 public:
  BpeCache();

 private:
  friend class BpeModel;
  static constexpr size_t kMaxBytes = 30;
  static constexpr size_t kMaxIds = 8;
  struct alignas(64) Entry {
    uint8_t num_bytes = 0;  // 0: empty
    uint8_t num_ids = 0;
    char bytes[kMaxBytes];
    int32_t ids[kMaxIds];
  };
  static constexpr size_t kEntries = size_t{1} << 15;

  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1;
    int32_t next = -1;
  };
  std::vector<Entry> entries_;
  std::vector<int32_t> ids_;
  std::vector<uint64_t> ranks_;
  std::vector<Symbol> symbols_;
};

class BpeModel {
 public:
  // Takes what it needs of the file; `path` is for messages.
  BpeModel(const TokenizerJson& json, const std::string& path);

  // Appends the ids of one piece.
  void encode(std::string_view piece, BpeCache& cache, std::vector<int32_t>& ids) const;

  int32_t vocab_size() const { return static_cast<int32_t>(bytes_.size()); }
  const std::string& bytes(int32_t id) const { return bytes_[static_cast<size_t>(id)]; }

 private:
  // Rank in the high half, the id that the merge gives in the low half: the lowest value is the
  // pair to merge next.
  static constexpr uint64_t kNoMerge = UINT64_MAX;
  uint64_t merge_of(int32_t left, int32_t right) const;
  void read_bytes(const TokenizerJson& json, const std::string& path);
  void read_merges(const TokenizerJson& json);
  void encode_anew(std::string_view piece, BpeCache& cache, std::vector<int32_t>& ids) const;
  void merge_short(std::string_view piece, BpeCache& cache, std::vector<int32_t>& ids) const;
  void merge_long(std::string_view piece, BpeCache& cache, std::vector<int32_t>& ids) const;

  std::vector<std::string> bytes_;            // by id
  std::vector<int32_t> byte_ids_;             // by byte
  TextMap<std::string_view, int32_t> whole_;  // pieces not to take apart; of bytes_
  struct Slot {
    uint64_t pair = UINT64_MAX;
    uint64_t merge = kNoMerge;
  };
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
};

}  // namespace caravan
