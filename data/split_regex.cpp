#include "data/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <ctime>

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
// Steps of a match, and bytes that they go over, between two looks at the clock: some 0.1 ms.
constexpr size_t kWorkPerLook = 4096;
constexpr double kSecondsAtOnce = 2;
constexpr double kSecondsPerByte = 2e-6;

// Patterns of released tokenizers, of which is known that they look at each character a few times
// at most: those of GPT-2, of Llama 3 (and the same with single digits, as Qwen has it), of Llama
// 4, and the three steps of DeepSeek V3.
constexpr std::array<std::string_view, 9> kLinearPatterns = {
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    R"(\p{N}{1,3})",
    R"(\p{N}+)",
    R"(\p{N})",
    "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// Without a repeat or a group, a match has a length that is known.
bool is_linear(std::string_view pattern) {
  return pattern.find_first_of("*+{(") == std::string_view::npos ||
         std::find(kLinearPatterns.begin(), kLinearPatterns.end(), pattern) !=
             kLinearPatterns.end();
}

using CompileContext =
    std::unique_ptr<pcre2_compile_context, pcre2::Deleter<pcre2_compile_context_free>>;

std::string pcre2_message(int code) {
  char buffer[128] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof(buffer));
  return buffer;
}

}  // namespace

namespace {

// Of computing, so that a machine that stands still or has other work stops nothing.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

struct SplitRegex::Code {
  std::unique_ptr<pcre2_code, pcre2::Deleter<pcre2_code_free>> code;
  // Patterns that could run away call back at each step. (Match limits do not bound them: neither
  // machine code nor the interpreter counts the characters that a repeat goes over.)
  bool has_jit = false;
  bool is_linear = false;
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
  allowance_ = kSecondsAtOnce;
  pcre2_set_heap_limit(handles_->context.get(), kHeapLimitKib);
  pcre2_jit_stack_assign(handles_->context.get(), nullptr, handles_->stack.get());
}

RegexScratch::~RegexScratch() = default;

void RegexScratch::start(size_t text_bytes) {
  started_ = thread_seconds();
  allowance_ = std::min(allowance_, kSecondsAtOnce);
  // One match may look at all of the text a few times, as a run of white space does.
  const size_t steps = std::min<size_t>(10'000'000 + 4 * text_bytes, UINT32_MAX);
  pcre2_set_match_limit(handles_->context.get(), static_cast<uint32_t>(steps));
  pcre2_set_callout(
      handles_->context.get(),
      [](pcre2_callout_block* block, void* scratch) {
        const bool late = static_cast<RegexScratch*>(scratch)->is_late(block->current_position);
        return late ? PCRE2_ERROR_CALLOUT : 0;
      },
      this);
}

void RegexScratch::finish() { allowance_ -= thread_seconds() - started_; }

// One step may go over all of the text (\p{L}*), so that steps alone say little about time.
bool RegexScratch::is_late(size_t position) {
  work_ += 1 + (position > position_ ? position - position_ : position_ - position);
  position_ = position;
  if (work_ < kWorkPerLook) return false;
  work_ = 0;
  const double spent = thread_seconds() - started_;
  allowance_ = std::min(allowance_, spent + kSecondsAtOnce);
  return spent > allowance_;
}

SplitRegex::SplitRegex(const std::string& pattern, const std::string& where)
    : pattern_(pattern), where_(where), code_(std::make_unique<Code>()) {
  const std::string translated = translate_pattern(pattern, where);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  code_->is_linear = is_linear(pattern);
  const uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | (code_->is_linear ? 0 : PCRE2_AUTO_CALLOUT);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()),
                                  translated.size(), options, &error, &offset, context.get()));
  if (code_->code == nullptr) {
    throw data_error(
        absl::StrFormat("%s: is no regular expression: %s", where, pcre2_message(error)));
  }
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code_->code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    throw data_error(where + ": this pattern can match nothing at all, which is not supported");
  }
  code_->has_jit =
      code_->is_linear && pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

SplitRegex::~SplitRegex() = default;
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;

bool SplitRegex::find(std::string_view text, size_t from, RegexScratch& scratch,
                      TextRange& match) const {
  pcre2_match_data* const data = scratch.handles_->match_data.get();
  const auto* const subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto search = code_->has_jit ? pcre2_jit_match : pcre2_match;
  const uint32_t options = code_->has_jit ? 0 : PCRE2_NO_UTF_CHECK;
  const int result = search(code_->code.get(), subject, text.size(), from, options, data,
                            scratch.handles_->context.get());
  const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(data);
  const size_t end = result > 0 ? ends[1] : text.size();
  scratch.allowance_ += kSecondsPerByte * static_cast<double>(end - from);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    scratch.allowance_ = kSecondsAtOnce;
    throw data_error(absl::StrFormat(
        "%s: this pattern takes too much time or memory on this text: repeats that can match the "
        "same text in many ways, as (a+)+ and a*a* do, must be written as one",
        where_));
  }
  match = {ends[0], ends[1]};
  check(match.begin >= from && match.end > match.begin, "pcre2: an empty match");
  return true;
}

}  // namespace caravan
