#include "data/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "data/durable_file.h"
#include "runtime/error.h"
#include "runtime/json.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr std::array<std::string_view, 4> kCompanions = {
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.model"};

}  // namespace

// What one thread needs while it encodes.
struct BpeTokenizer::Scratch {
  BpeCache cache;
  RegexScratch regex;
};

// Takes a Scratch that nobody uses, or a new one, and gives it back.
class BpeTokenizer::ScratchLoan {
 public:
  explicit ScratchLoan(const BpeTokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    if (owner_.idle_.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    }
  }
  ~ScratchLoan() {
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(scratch_));
  }
  ScratchLoan(const ScratchLoan&) = delete;
  ScratchLoan& operator=(const ScratchLoan&) = delete;
  Scratch& operator*() const { return *scratch_; }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Scratch> scratch_;
};

BpeTokenizer::BpeTokenizer(const std::string& path)
    : BpeTokenizer(read_file(path, kMaxFileBytes, ExitCode::data), path) {
  add_files(kCompanions);
  find_ends(fs::path(path).parent_path().string());
}

BpeTokenizer::BpeTokenizer(std::string_view json, const std::string& path)
    : Tokenizer(path, json),
      json_(parse_tokenizer_json(json, path)),
      model_(json_, path),
      added_tokens_(json_.added_tokens),
      pretokenizer_(json_.steps, path),
      added_content_(json_.names.size()),
      is_special_(json_.names.size()) {
  json_.merges = {};
  json_.merged = {};
  for (const AddedToken& token : json_.added_tokens) {
    added_content_[static_cast<size_t>(token.id)] = token.content;
    is_special_[static_cast<size_t>(token.id)] = token.special;
  }
  for (size_t id = 0; id < json_.names.size(); ++id) {
    if (!json_.names[id].empty()) ids_.emplace(json_.names[id], static_cast<int32_t>(id));
  }
  if (!json_.prefix_ids.empty()) bos_id_ = json_.prefix_ids.front();
}

BpeTokenizer::~BpeTokenizer() = default;

int32_t BpeTokenizer::named(const std::string& name, const char* key) const {
  if (name.empty()) return -1;
  const int32_t id = token_id(name);
  if (id >= 0) return id;
  throw data_error(
      absl::StrFormat("%s: %s of the tokenizer_config.json beside it is %s, which is no token",
                      path(), key, in_quotes(name)));
}

// Which of bos and eos a sequence gets is what transformers does with add_special_tokens: the
// post-processor says it, unless tokenizer_config.json has add_bos_token or add_eos_token, which
// then decide. A class of Llama has add_bos_token where the file does not say it. That there is a
// bos_token alone adds nothing.
void BpeTokenizer::find_ends(const std::string& folder) {
  const TokenNames names = read_token_names(folder);
  check_prefix_space(names);
  const auto choose = [&](int32_t by_name, int32_t by_number, int32_t otherwise) {
    if (by_name >= 0) return by_name;
    return by_number >= 0 && by_number < vocab_size() ? by_number : otherwise;
  };
  bos_id_ = choose(named(names.bos, "bos_token"), names.bos_id, bos_id_);
  eos_id_ = choose(named(names.eos, "eos_token"), names.eos_id, -1);
  const auto apply = [&](std::optional<bool> adds, int32_t id, const char* name,
                         std::vector<int32_t>& ids) {
    if (!adds) return;
    ids.clear();
    if (!*adds) return;
    if (id >= 0) return ids.push_back(id);
    throw data_error(absl::StrFormat(
        "%s: add_%s of the tokenizer_config.json beside it is true, but there is no %s: name it "
        "there",
        path(), name, name));
  };
  std::optional<bool> adds_bos = names.adds_bos;
  if (!adds_bos && names.is_llama && bos_id_ >= 0) adds_bos = true;
  apply(adds_bos, bos_id_, "bos_token", json_.prefix_ids);
  apply(names.adds_eos, eos_id_, "eos_token", json_.suffix_ids);
}

// transformers would change the pre-tokenizer; which classes do differs between its versions.
void BpeTokenizer::check_prefix_space(const TokenNames& names) const {
  const auto is_space = [](const PretokenizerStep& step) {
    return step.kind == PretokenizerKind::prefix_space;
  };
  const bool has_space = std::any_of(json_.steps.begin(), json_.steps.end(), is_space);
  if (names.adds_prefix_space.value_or(has_space) == has_space) return;
  throw data_error(absl::StrFormat(
      "%s: key 'add_prefix_space' of the tokenizer_config.json beside it is %s, but ByteLevel's "
      "here is not, and the ids would depend on the reader: give both the same value",
      path(), *names.adds_prefix_space ? "true" : "false"));
}

void BpeTokenizer::encode_valid(std::string_view text, SpecialTokens special,
                                std::vector<int32_t>& ids) const {
  const ScratchLoan loan(*this);
  Scratch& scratch = *loan;
  scratch.regex.start(text.size());
  const auto take = [&](std::string_view piece) { model_.encode(piece, scratch.cache, ids); };
  added_tokens_.split(text, special, [&](std::string_view piece, int32_t id) {
    if (id >= 0) return ids.push_back(id);
    pretokenizer_.split(piece, scratch.regex, take);
  });
  scratch.regex.finish();
}

std::string_view BpeTokenizer::token_bytes(int32_t id, SpecialTokens special) const {
  check_id(id);
  const auto at = static_cast<size_t>(id);
  if (is_special_[at] && special == SpecialTokens::skip) return {};
  return added_content_[at].empty() ? model_.bytes(id) : added_content_[at];
}

std::string BpeTokenizer::piece(int32_t id) const {
  check_id(id);
  return json_.names[static_cast<size_t>(id)];
}

int32_t BpeTokenizer::token_id(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? -1 : found->second;
}

bool BpeTokenizer::is_special(int32_t id) const {
  check_id(id);
  return is_special_[static_cast<size_t>(id)];
}

bool BpeTokenizer::keeps_text() const {
  return pretokenizer_.keeps_text() && added_tokens_.keeps_text();
}

}  // namespace caravan
