#include "data/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "runtime/error.h"

namespace caravan {
namespace pcre2 {

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};

}  // namespace pcre2

namespace {

constexpr size_t kJitStackBytes = size_t{1} << 20;
constexpr uint32_t kHeapLimitKib = 64 << 10;
// Positions at which one call of PCRE2 tries to start a match; after it the clock is read.
constexpr size_t kStartsPerCall = 256;
constexpr unsigned kSearchesPerCheck = 8;
constexpr double kSecondsPerText = 5;
constexpr double kSecondsPerByte = 5e-6;

using CompileContext =
    std::unique_ptr<pcre2_compile_context, pcre2::Deleter<pcre2_compile_context_free>>;

std::string pcre2_message(int code) {
  char buffer[128] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof(buffer));
  return buffer;
}

}  // namespace

struct SplitRegex::Code {
  std::unique_ptr<pcre2_code, pcre2::Deleter<pcre2_code_free>> code;
  bool has_jit = false;
};

struct RegexScratch::Handles {
  std::unique_ptr<pcre2_match_data, pcre2::Deleter<pcre2_match_data_free>> match_data;
  std::unique_ptr<pcre2_match_context, pcre2::Deleter<pcre2_match_context_free>> context;
  std::unique_ptr<pcre2_jit_stack, pcre2::Deleter<pcre2_jit_stack_free>> stack;
};

RegexScratch::RegexScratch() : handles_(std::make_unique<Handles>()) {
  handles_->match_data.reset(pcre2_match_data_create(1, nullptr));
  handles_->context.reset(pcre2_match_context_create(nullptr));
  handles_->stack.reset(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr));
  check(handles_->match_data && handles_->context && handles_->stack, "pcre2: out of memory");
  pcre2_set_heap_limit(handles_->context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(handles_->context.get(), nullptr, handles_->stack.get());
}

RegexScratch::~RegexScratch() = default;

void RegexScratch::start(size_t text_bytes) {
  const std::chrono::duration<double> limit(kSecondsPerText +
                                            kSecondsPerByte * static_cast<double>(text_bytes));
  deadline_ = std::chrono::steady_clock::now() +
              std::chrono::duration_cast<std::chrono::steady_clock::duration>(limit);
  // One match may look at all of the text a few times, as a run of white space does.
  const size_t steps = std::min<size_t>(100'000 + 4 * text_bytes, UINT32_MAX);
  pcre2_set_match_limit(handles_->context.get(), static_cast<uint32_t>(steps));
}

void RegexScratch::check_time(const SplitRegex& regex) {
  if (std::chrono::steady_clock::now() < deadline_) return;
  throw data_error(regex.where_ + ": this pattern takes too long on this text");
}

SplitRegex::SplitRegex(const std::string& pattern, const std::string& where)
    : pattern_(pattern), where_(where), code_(std::make_unique<Code>()) {
  const std::string translated = translate_pattern(pattern, where);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT,
                    &error, &offset, context.get()));
  if (code_->code == nullptr) {
    throw data_error(
        absl::StrFormat("%s: is no regular expression: %s", where, pcre2_message(error)));
  }
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code_->code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    throw data_error(where + ": this pattern can match nothing at all, which is not supported");
  }
  code_->has_jit = pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

SplitRegex::~SplitRegex() = default;
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;

bool SplitRegex::find(std::string_view text, size_t from, RegexScratch& scratch,
                      TextRange& match) const {
  pcre2_match_data* const data = scratch.handles_->match_data.get();
  pcre2_match_context* const context = scratch.handles_->context.get();
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto search = code_->has_jit ? pcre2_jit_match : pcre2_match;
  const uint32_t options = code_->has_jit ? 0 : PCRE2_NO_UTF_CHECK;
  while (from < text.size()) {
    if (++scratch.num_searches_ % kSearchesPerCheck == 0) scratch.check_time(*this);
    const size_t last_start = from + kStartsPerCall;
    pcre2_set_offset_limit(context, last_start);
    const int result =
        search(code_->code.get(), subject, text.size(), from, options, data, context);
    if (result >= 0) {
      const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(data);
      match = {ends[0], ends[1]};
      check(match.begin >= from && match.end > match.begin, "pcre2: an empty match");
      return true;
    }
    if (result != PCRE2_ERROR_NOMATCH) {
      throw data_error(absl::StrFormat("%s: this pattern takes too long on this text: %s", where_,
                                       pcre2_message(result)));
    }
    scratch.check_time(*this);
    from = last_start + 1;
    while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) ++from;
  }
  return false;
}

}  // namespace caravan
