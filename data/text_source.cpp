#include "data/text_source.h"

#include <simdjson.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "data/utf8.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 3> kTextSuffixes = {".txt", ".rst", ".md"};
constexpr std::string_view kJsonSuffix = ".jsonl";
constexpr std::string_view kGzipSuffix = ".gz";
constexpr std::string_view kKnownSuffixes = ".txt .rst .md .jsonl, each also with .gz";
constexpr size_t kReadBytes = size_t{256} << 10;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

enum class FileKind { text, json_lines, other };

FileKind kind_of(std::string_view path) {
  if (path.ends_with(kGzipSuffix)) path.remove_suffix(kGzipSuffix.size());
  if (path.ends_with(kJsonSuffix)) return FileKind::json_lines;
  const bool is_text = std::any_of(kTextSuffixes.begin(), kTextSuffixes.end(),
                                   [&](std::string_view suffix) { return path.ends_with(suffix); });
  return is_text ? FileKind::text : FileKind::other;
}

void list_folder(const std::string& folder, std::vector<std::string>& files) {
  const size_t before = files.size();
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
      const std::string path = entry.path().string();
      if (kind_of(path) != FileKind::other && entry.is_regular_file()) files.push_back(path);
    }
  } catch (const fs::filesystem_error& error) {
    throw data_error(
        absl::StrFormat("%s: cannot list the folder: %s", folder, error.code().message()));
  }
  if (files.size() == before) {
    throw data_error(absl::StrFormat("%s: no text found: looked for files that end in %s", folder,
                                     kKnownSuffixes));
  }
  std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
}

// A file, decompressed where it is gzip; other files pass through zlib unchanged.
class InputFile {
 public:
  explicit InputFile(const std::string& path) : path_(path), file_(gzopen(path.c_str(), "rbe")) {
    if (file_ == nullptr) {
      throw data_error(absl::StrFormat("%s: cannot open: %s", path, std::strerror(errno)));
    }
    gzbuffer(file_, kReadBytes);
  }
  ~InputFile() { gzclose(file_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }

  // Appends up to kReadBytes; false at the end of the file.
  bool append_to(std::string& text) {
    const size_t before = text.size();
    text.resize(before + kReadBytes);
    const int count = gzread(file_, text.data() + before, kReadBytes);
    text.resize(before + static_cast<size_t>(std::max(count, 0)));
    // A cut-off gzip file ends without an error of gzread: only gzerror tells.
    int code = Z_OK;
    const char* reason = gzerror(file_, &code);
    if (count < 0 || (count == 0 && code != Z_OK && code != Z_STREAM_END)) fail(code, reason);
    check_compressed();
    return count > 0;
  }

 private:
  // zlib passes on as it is what does not begin like gzip.
  void check_compressed() const {
    if (!path_.ends_with(kGzipSuffix) || gzdirect(file_) == 0) return;
    throw data_error(
        absl::StrFormat("%s: is not gzip: compress it again, or rename it without %s if it is "
                        "plain text",
                        path_, kGzipSuffix));
  }

  [[noreturn]] void fail(int code, const char* reason) const {
    if (code == Z_ERRNO) reason = std::strerror(errno);
    throw data_error(absl::StrFormat("%s: cannot read (damaged or cut off?): %s", path_, reason));
  }

  std::string path_;
  gzFile file_;
};

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
}

}  // namespace

std::vector<std::string> list_text_files(const std::vector<std::string>& inputs) {
  std::vector<std::string> files;
  for (const std::string& input : inputs) {
    if (fs::is_directory(input)) {
      list_folder(input, files);
    } else if (!fs::exists(input)) {
      throw data_error(input + ": no such file or folder");
    } else if (kind_of(input) == FileKind::other) {
      throw data_error(
          absl::StrFormat("%s: the name must end in one of %s", input, kKnownSuffixes));
    } else {
      files.push_back(input);
    }
  }
  return files;
}

// `buffer` holds raw bytes of the open file (JSON lines) or of the document (text), `body` the text
// of a document of which [body_begin, end) has not been handed out.
struct TextSource::State {
  std::vector<std::string> files;
  size_t max_document_bytes;
  size_t next_file = 0;
  std::unique_ptr<InputFile> input;
  FileKind kind = FileKind::other;
  bool input_ended = false;

  std::string buffer;  // JSON lines: bytes read, of which [buffer_begin, end) are not yet used
  size_t buffer_begin = 0;
  int64_t line = 0;
  std::string line_text;
  simdjson::dom::parser parser;

  std::string body;
  size_t body_begin = 0;
  bool body_complete = false;  // no more of this document will be read
  bool body_is_valid = false;  // known to be UTF-8
  TextStatistics statistics;

  size_t rest_bytes() const { return body.size() - body_begin; }
  bool open_next();
  void start_body();
  bool refill();
  void read_text();
  bool read_line();
  void parse_line();
  bool take_piece(std::string& document);
};

bool TextSource::State::open_next() {
  if (next_file == files.size()) return false;
  input = std::make_unique<InputFile>(files[next_file]);
  kind = kind_of(files[next_file]);
  ++next_file;
  input_ended = false;
  buffer.clear();
  buffer_begin = 0;
  line = 0;
  start_body();
  return true;
}

void TextSource::State::start_body() {
  body.clear();
  body_begin = 0;
  body_complete = false;
}

// Gets more of the document, or the next one; false when all files are read.
bool TextSource::State::refill() {
  while (input != nullptr || open_next()) {
    if (kind == FileKind::text && !body_complete) {
      read_text();
      return true;
    }
    if (kind == FileKind::json_lines && read_line()) {
      parse_line();
      return true;
    }
    input.reset();
    start_body();
  }
  return false;
}

void TextSource::State::read_text() {
  const bool at_start = body.empty();
  body.erase(0, body_begin);
  body_begin = 0;
  while (body.size() <= max_document_bytes && !input_ended) input_ended = !input->append_to(body);
  body_complete = input_ended;
  body_is_valid = false;
  if (at_start && body.starts_with(kByteOrderMark)) body_begin = kByteOrderMark.size();
  if (rest_bytes() == 0) ++statistics.num_empty;
}

// The next line of the file, without its newline, into `line_text`.
bool TextSource::State::read_line() {
  size_t searched = buffer_begin;
  size_t newline = buffer.find('\n', searched);
  while (newline == std::string::npos && !input_ended) {
    buffer.erase(0, buffer_begin);
    buffer_begin = 0;
    searched = buffer.size();
    if (searched > static_cast<size_t>(kMaxLineBytes)) {
      throw data_error(absl::StrFormat("%s:%d: the line is longer than %d bytes: split it",
                                       input->path(), line + 1, kMaxLineBytes));
    }
    input_ended = !input->append_to(buffer);
    newline = buffer.find('\n', searched);
  }
  const size_t end = std::min(newline, buffer.size());
  if (newline == std::string::npos && buffer_begin == end) return false;
  line_text.assign(buffer, buffer_begin, end - buffer_begin);
  buffer_begin = std::min(end + 1, buffer.size());
  ++line;
  return true;
}

void TextSource::State::parse_line() {
  start_body();
  body_complete = true;
  body_is_valid = true;
  if (line == 1 && line_text.starts_with(kByteOrderMark)) line_text.erase(0, kByteOrderMark.size());
  if (is_blank(line_text)) return;
  statistics.num_replaced += replace_invalid_utf8(line_text);
  std::string_view text;
  const auto parsed = parser.parse(line_text);
  simdjson::error_code error = parsed.error();
  const char* problem = "is not valid JSON";
  if (error == simdjson::SUCCESS) {
    error = parsed["text"].get_string().get(text);
    problem = "has no field \"text\" that is a string";
  }
  if (error != simdjson::SUCCESS) {
    throw data_error(absl::StrFormat(
        "%s:%d: the line %s (%s): every line must be an object such as {\"text\": \"...\"}",
        input->path(), line, problem, simdjson::error_message(error)));
  }
  body = text;
  if (is_blank(body)) {
    ++statistics.num_empty;
    body.clear();
  }
}

bool TextSource::State::take_piece(std::string& document) {
  while (rest_bytes() > 0 && (body_complete || rest_bytes() > max_document_bytes)) {
    const size_t size = line_cut(std::string_view(body).substr(body_begin), max_document_bytes);
    document.assign(body, body_begin, size);
    body_begin += size;
    if (is_blank(document)) {
      ++statistics.num_empty;
      continue;
    }
    if (rest_bytes() > 0) ++statistics.num_cuts;
    if (!body_is_valid) statistics.num_replaced += replace_invalid_utf8(document);
    ++statistics.num_documents;
    statistics.num_bytes += static_cast<int64_t>(document.size());
    return true;
  }
  return false;
}

TextSource::TextSource(std::vector<std::string> files, int64_t max_document_bytes)
    : state_(std::make_unique<State>()) {
  check(max_document_bytes >= 4, "text source: documents of at most %d bytes", max_document_bytes);
  state_->files = std::move(files);
  state_->max_document_bytes = static_cast<size_t>(max_document_bytes);
}

TextSource::~TextSource() = default;

bool TextSource::next(std::string& document) {
  while (!state_->take_piece(document)) {
    if (!state_->refill()) return false;
  }
  return true;
}

const TextStatistics& TextSource::statistics() const { return state_->statistics; }

}  // namespace caravan
