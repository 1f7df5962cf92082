// Documents out of text files, one after another, in bounded memory: plain text (.txt .rst .md, one
// document a file) and JSON lines (.jsonl, one document a line, in the field "text"), all of them
// also as .gz. Knows nothing of tokens.
//
// Threads: one at a time. Errors: data_error with the file (and the line) and the fix.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace caravan {

// The text files of `inputs`, each a file or a folder (searched to the bottom; folders that are
// symbolic links are not entered). Inputs stay in their order, the files of a folder are sorted by
// path: the same list on every machine.
std::vector<std::string> list_text_files(const std::vector<std::string>& inputs);

struct TextStatistics {
  int64_t num_documents = 0;
  int64_t num_bytes = 0;     // of text, after decompression and JSON
  int64_t num_empty = 0;     // documents of nothing but white space: skipped
  int64_t num_cuts = 0;      // cuts made in documents longer than the limit
  int64_t num_replaced = 0;  // bytes or parts of characters that were not UTF-8: now U+FFFD

  bool operator==(const TextStatistics&) const = default;
};

class TextSource {
 public:
  static constexpr int64_t kMaxDocumentBytes = int64_t{16} << 20;
  static constexpr int64_t kMaxLineBytes = int64_t{64} << 20;  // of JSON; longer is an error

  // Documents longer than `max_document_bytes` are cut after a line, or between two characters
  // where a line is longer than that. Memory: one document, plus what a line of JSON needs.
  explicit TextSource(std::vector<std::string> files,
                      int64_t max_document_bytes = kMaxDocumentBytes);
  ~TextSource();
  TextSource(const TextSource&) = delete;
  TextSource& operator=(const TextSource&) = delete;

  bool next(std::string& document);  // valid UTF-8; false when there are no more
  const TextStatistics& statistics() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace caravan
