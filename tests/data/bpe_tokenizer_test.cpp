#include "data/bpe_tokenizer.h"

#include <sys/stat.h>

#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/byte_alphabet.h"
#include "data/sentencepiece_tokenizer.h"
#include "runtime/rng.h"
#include "support.h"

namespace caravan {
namespace {

using Json = nlohmann::ordered_json;

Json added_token(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

Json split(const std::string& pattern, const std::string& behavior = "Isolated") {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", behavior},
          {"invert", false}};
}

Json byte_level(bool use_regex = false) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

void set_steps(Json& json, std::vector<Json> steps) {
  steps.push_back(byte_level());
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// Ids 0..255 are the bytes; then come the merges, then <|end|> (special) and <note> (not special).
Json tokenizer_json(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json vocab = Json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[alphabet_of_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  }
  Json list = Json::array();
  for (const auto& [left, right] : merges) {
    vocab.emplace(left + right, vocab.size());
    list.push_back(Json::array({left, right}));
  }
  const int size = static_cast<int>(vocab.size());
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", Json::array({added_token(size, "<|end|>", true),
                                        added_token(size + 1, "<note>", false)})},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level()},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}}};
}

const std::vector<std::pair<std::string, std::string>> kMerges = {
    {"b", "c"}, {"a", "b"}, {"a", "a"}, {"aa", "aa"}, {"ab", "ab"}, {"a", "bc"}};

BpeTokenizer open(const Json& json) { return BpeTokenizer(json.dump(), "t.json"); }

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> result;
  for (const int32_t id : tokenizer.encode_with_special(text))
    result.push_back(tokenizer.piece(id));
  return result;
}

using Pieces = std::vector<std::string>;

TEST(BpeTokenizer, MergesTheLowestRankThenTheLeftmost) {
  const BpeTokenizer tokenizer(tokenizer_json(kMerges).dump(), "t.json");
  EXPECT_EQ(pieces(tokenizer, "abc"), (Pieces{"abc"}));      // bc before ab, then a with bc
  EXPECT_EQ(pieces(tokenizer, "aaa"), (Pieces{"aa", "a"}));  // the leftmost
  EXPECT_EQ(pieces(tokenizer, "aaaaa"), (Pieces{"aaaa", "a"}));
  EXPECT_EQ(pieces(tokenizer, "ababc"), (Pieces{"ab", "abc"}));
  EXPECT_EQ(pieces(tokenizer, "\xC3\xA9"), (Pieces{"\xC3\x83", "\xC2\xA9"}));
  EXPECT_TRUE(tokenizer.encode("").empty());
}

// The rule as it stands, over all of the piece each time.
std::vector<int32_t> merged_slowly(const Json& json, const std::string& text) {
  const TokenizerJson parsed = parse_tokenizer_json(json.dump(), "t.json");
  std::vector<int32_t> ids(text.begin(), text.end());
  for (size_t rank = 0; rank < parsed.merges.size();) {
    bool found = false;
    for (size_t i = 0; i + 1 < ids.size() && !found; ++i) {
      if (std::pair(ids[i], ids[i + 1]) != parsed.merges[rank]) continue;
      ids[i] = parsed.merged[rank];
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      found = true;
    }
    rank = found ? 0 : rank + 1;
  }
  return ids;
}

TEST(BpeTokenizer, ShortAndLongPiecesFollowTheRule) {
  const Json json = tokenizer_json(kMerges);
  const BpeTokenizer tokenizer(json.dump(), "t.json");
  const RandomStream random(5, RandomPurpose::test, 0);
  uint64_t element = 0;
  for (size_t round = 0; round < 400; ++round) {
    std::string text;
    for (size_t i = 0; i < 1 + round / 2; ++i) text += "aabc"[random.bits(element++) % 4];
    ASSERT_EQ(tokenizer.encode(text), merged_slowly(json, text)) << text;
    ASSERT_EQ(tokenizer.encode(text), merged_slowly(json, text)) << "from the cache: " << text;
  }
}

TEST(BpeTokenizer, AMegabyteWithoutASpaceIsOnePiece) {
  const BpeTokenizer tokenizer(tokenizer_json(kMerges).dump(), "t.json");
  const std::string text(1'000'001, 'a');
  const std::vector<int32_t> ids = tokenizer.encode(text);
  EXPECT_EQ(ids.size(), 250'001u);
  EXPECT_EQ(tokenizer.decode(ids), text);
}

TEST(BpeTokenizer, IgnoreMergesTakesEntriesWhole) {
  Json json = tokenizer_json(kMerges);
  json["model"]["vocab"]["cab"] = json["model"]["vocab"].size();
  for (Json& token : json["added_tokens"]) token["id"] = token["id"].get<int>() + 1;
  EXPECT_EQ(pieces(open(json), "cab"), (Pieces{"c", "ab"}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(pieces(open(json), "cab"), (Pieces{"cab"}));
}

TEST(BpeTokenizer, SpecialTokensInTextArePlainText) {
  const BpeTokenizer tokenizer(tokenizer_json(kMerges).dump(), "t.json");
  const std::string text = "a<|end|>b<note>";
  const int32_t end = tokenizer.token_id("<|end|>");
  const std::vector<int32_t> plain = tokenizer.encode(text);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 0);
  EXPECT_EQ(plain.back(), tokenizer.token_id("<note>"));
  EXPECT_EQ(tokenizer.decode(plain), text);
  EXPECT_EQ(pieces(tokenizer, text), (Pieces{"a", "<|end|>", "b", "<note>"}));
  const std::vector<int32_t> special = tokenizer.encode_with_special(text);
  EXPECT_EQ(tokenizer.decode(special), "ab<note>");
  EXPECT_EQ(tokenizer.decode(special, SpecialTokens::show), text);
}

TEST(BpeTokenizer, AddedTokensHaveTheirFlags) {
  Json json = tokenizer_json({});
  const auto with = [&](std::initializer_list<const char*> flags) {
    for (const char* flag : flags) json["added_tokens"][1][flag] = true;
    return pieces(open(json), "a <note> b<note>c");
  };
  const std::string s = "\xC4\xA0";  // a space
  EXPECT_EQ(with({}), (Pieces{"a", s, "<note>", s, "b", "<note>", "c"}));
  EXPECT_EQ(with({"lstrip"}), (Pieces{"a", "<note>", s, "b", "<note>", "c"}));
  EXPECT_EQ(with({"rstrip"}), (Pieces{"a", "<note>", "b", "<note>", "c"}));
  EXPECT_EQ(with({"single_word"}).size(), 10u);  // only the first stands alone
}

TEST(BpeTokenizer, InvalidTextIsReplaced) {
  const BpeTokenizer tokenizer(tokenizer_json(kMerges).dump(), "t.json");
  EXPECT_EQ(tokenizer.encode("a\xFF\xE2\x82z"), tokenizer.encode("a\uFFFD\uFFFDz"));
}

TEST(BpeTokenizer, ThreadsGetTheSameIds) {
  const BpeTokenizer tokenizer(tokenizer_json(kMerges).dump(), "t.json");
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "abc"[i * i % 3];
  const std::vector<int32_t> expected = tokenizer.encode(text);
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) equal[t] += tokenizer.encode(text) == expected ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, std::vector<int>(4, 50));
}

TEST(BpeTokenizer, APatternThatBacktracksWithoutEndIsAnError) {
  Json json = tokenizer_json({});
  for (const char* pattern : {"(a+)+[bc]", "(a|aa)+[bc]", "(?:a*a*a*)*[bc]"}) {
    set_steps(json, {split(pattern)});
    const BpeTokenizer tokenizer(json.dump(), "t.json");
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("aab")), "aab");
    expect_contains(message_of(ExitCode::data, [&] { tokenizer.encode(std::string(3000, 'a')); }),
                    {"t.json", "pretokenizers[0].pattern", "takes too much time"});
  }
}

// Computing of the process, so that other work on the machine does not count.
double seconds_of(const std::function<void()>& action) {
  const std::clock_t begin = std::clock();
  action();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST(BpeTokenizer, ARunawayPatternIsStoppedInOneTextAndInMany) {
  const std::string letters(200'000, 'a');
  std::string lines;
  for (int line = 0; line < 3000; ++line) lines += std::string(60, 'b') + "\n";
  Json json = tokenizer_json({});
  for (const char* pattern : {R"(\p{L}*\p{L}*\p{L}*\p{L}*\p{L}*\d)", R"((?:\p{L}+|\s)+\d|.)"}) {
    set_steps(json, {split(pattern)});
    const BpeTokenizer tokenizer(json.dump(), "t.json");
    const auto refuses = [&](const std::function<void()>& action) {
      EXPECT_LT(seconds_of([&] {
                  expect_contains(message_of(ExitCode::data, action),
                                  {"t.json", "takes too much time", "written as one"});
                }),
                30)
          << pattern;
    };
    refuses([&] { tokenizer.encode(letters); });
    refuses([&] { tokenizer.encode(lines); });
    // Each line alone is done in less than what one text may take.
    refuses([&] {
      for (int line = 0; line < 10'000; ++line) tokenizer.encode(std::string(45, 'b'));
    });
    EXPECT_EQ(tokenizer.encode("ab 1\n").size(), 5u) << "after an error, too";
  }
}

// An unknown pattern is slower, but no amount of text makes it late.
TEST(BpeTokenizer, AHarmlessPatternIsNeverLate) {
  Json json = tokenizer_json({});
  set_steps(json, {split(R"(\p{L}+|\p{N}{1,2}|\s+|[^\s\p{L}\p{N}]+)")});
  const BpeTokenizer tokenizer(json.dump(), "t.json");
  std::string text;
  while (text.size() < size_t{4} << 20) text += "some words, 1234 more; and (so) on\n";
  EXPECT_EQ(tokenizer.encode(text).size(), text.size());
}

TEST(BpeTokenizer, SplitsRemoveOrIsolate) {
  Json json = tokenizer_json({{"a", "-"}, {"-", "a"}});
  set_steps(json, {split("-")});
  EXPECT_EQ(pieces(open(json), "a-a"), (Pieces{"a", "-", "a"}));
  set_steps(json, {split("-", "Removed")});
  EXPECT_EQ(pieces(open(json), "a-a"), (Pieces{"a", "a"}));
  EXPECT_FALSE(open(json).keeps_text());
  set_steps(json, {});
  EXPECT_EQ(pieces(open(json), "a-a"), (Pieces{"a-", "a"}));
  EXPECT_TRUE(open(json).keeps_text());
}

TEST(BpeTokenizer, SaysWhatIsNotSupported) {
  const auto message = [](const std::function<void(Json&)>& change) {
    Json json = tokenizer_json(kMerges);
    change(json);
    return message_of(ExitCode::data, [&] { open(json); });
  };
  const auto set = [&](const char* pointer, const Json& value) {
    return message(
        [&](Json& json) { json[nlohmann::ordered_json::json_pointer(pointer)] = value; });
  };
  expect_contains(set("/normalizer", {{"type", "NFC"}}), {"t.json", "normalizer.type", "'NFC'"});
  expect_contains(set("/truncation", {{"max_length", 5}}), {"truncation"});
  expect_contains(set("/padding", {{"strategy", "Fixed"}}), {"padding"});
  expect_contains(set("/model/type", "WordPiece"), {"model.type", "'WordPiece'"});
  expect_contains(set("/model/dropout", 0.1), {"model.dropout"});
  expect_contains(set("/model/byte_fallback", true), {"model.byte_fallback"});
  expect_contains(set("/model/end_of_word_suffix", "</w>"), {"model.end_of_word_suffix"});
  expect_contains(set("/model/novelty", 1), {"model", "unknown key 'novelty'"});
  expect_contains(set("/novelty", 1), {"unknown key 'novelty'"});
  expect_contains(set("/model/vocab/a", 98), {"model.vocab", "98"});
  expect_contains(set("/model/vocab/a", -1), {"model.vocab", "'a'", "-1"});
  expect_contains(set("/model/vocab/a", 4'000'000), {"model.vocab", "4000000"});
  expect_contains(set("/model/merges/0", {"b", "zz"}), {"model.merges[0]", "'zz'"});
  expect_contains(set("/model/merges/0", "b c d"), {"merges", "two names"});
  expect_contains(set("/pre_tokenizer", {{"type", "Whitespace"}}), {"no ByteLevel"});
  expect_contains(set("/decoder", {{"type", "Metaspace"}}), {"decoder.type", "'Metaspace'"});
  expect_contains(set("/post_processor", {{"type", "BertProcessing"}}), {"post_processor.type"});
  expect_contains(set("/added_tokens/0/id", 9000), {"added_tokens[0].id", "9000"});
  expect_contains(message([](Json& json) { json["model"]["vocab"].erase("a"); }), {"'a'"});
  expect_contains(message([](Json& json) {
                    json["model"]["vocab"].erase("d");
                    json["model"]["vocab"]["dd"] = 100;
                  }),
                  {"byte 0x64"});
  const auto steps = [&](const Json& step) {
    return message([&](Json& json) { set_steps(json, {step}); });
  };
  expect_contains(steps(split("a", "MergedWithNext")), {"behavior", "\"MergedWithNext\""});
  expect_contains(steps({{"type", "Metaspace"}}), {"pretokenizers[0].type", "'Metaspace'"});
  Json inverted = split("a");
  inverted["invert"] = true;
  expect_contains(steps(inverted), {"invert"});
  expect_contains(steps(byte_level()), {"after ByteLevel"});
  for (const char* no_json : {"", "{", "[]", "{\"model\": 1}", "\xFF"}) {
    message_of(ExitCode::data, [&] { BpeTokenizer(no_json, "t.json"); });
  }
  message_of(ExitCode::data, [] { BpeTokenizer(std::string(100'000, '['), "t.json"); });
}

TEST(BpeTokenizer, TheSameKeyTwiceIsAnError) {
  std::string text = tokenizer_json({}).dump();
  text.replace(text.find("\"a\":97"), 6, "\"a\":97,\"a\":300");
  expect_contains(message_of(ExitCode::data, [&] { BpeTokenizer(text, "t.json"); }),
                  {"model.vocab", "'a' twice"});
  text = tokenizer_json({}).dump();
  text.replace(text.find("\"padding\":null"), 14, "\"padding\":null,\"padding\":null");
  expect_contains(message_of(ExitCode::data, [&] { BpeTokenizer(text, "t.json"); }),
                  {"'padding' twice"});
}

TEST(SplitPattern, RefusesWhatIsReadDifferently) {
  for (const char* pattern : {"",        "^a",         "a$",          "\\b",
                              "\\w",     "\\h",        "a{2}+",       "a{2}?",
                              "a++*",    "[a&&b]",     "[[:alpha:]]", "[]a]",
                              "(?i)a",   "(?i:ss)",    "(?i:\\p{L})", "(?i:\xC3\xA9)",
                              "(?#x)",   "(?<name>a)", "(*UCP)",      "\\p{Foo}",
                              "\\pL",    "a)",         "(a",          "[a",
                              "[\\s-a]", "[a-\\s]",    "a{1001}",     "{,3}",
                              "\\1",     "\\Q"}) {
    message_of(ExitCode::data, [&] { SplitRegex(pattern, "t.json: p"); });
  }
  for (const char* pattern : {"a|", "a*", "(?=a)", "*a", "[z-a]"}) {  // nothing, or no pattern
    message_of(ExitCode::data, [&] { SplitRegex(pattern, "t.json: p"); });
  }
  for (const char* pattern :
       {"a++", "a{1,3}", "(?:a|b)+?", "[^\\s\\p{L}-]", "\\p{Han}", "(?i:'ll)"}) {
    EXPECT_NO_THROW(SplitRegex(pattern, "t.json: p")) << pattern;
  }
}

// White space is Unicode's, which PCRE2's own \s is not (U+180E).
TEST(SplitPattern, WhiteSpaceIsThatOfUnicode) {
  const SplitRegex space("\\s", "p"), in_class("[\\s]", "p"), not_space("\\S", "p"),
      not_in_class("[^\\s]", "p"), class_of_not("[\\S]", "p");
  RegexScratch scratch;
  size_t num_spaces = 0;
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else if (code < 0x800) {
      text += static_cast<char>(0xC0 | code >> 6);
    } else if (code < 0x10000) {
      text += static_cast<char>(0xE0 | code >> 12);
      text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    } else {
      text += static_cast<char>(0xF0 | code >> 18);
      text += static_cast<char>(0x80 | (code >> 12 & 0x3F));
      text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    }
    if (code >= 0x80) text += static_cast<char>(0x80 | (code & 0x3F));
    const bool expected = (code >= 9 && code <= 13) || code == ' ' || code == 0x85 ||
                          code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
                          code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F ||
                          code == 0x3000;
    num_spaces += expected ? 1 : 0;
    TextRange range;
    if (code % 4096 == 0) scratch.start(1 << 20);
    for (const SplitRegex* regex : {&space, &in_class}) {
      ASSERT_EQ(regex->find(text, 0, scratch, range), expected) << static_cast<uint32_t>(code);
    }
    for (const SplitRegex* regex : {&not_space, &not_in_class, &class_of_not}) {
      ASSERT_EQ(regex->find(text, 0, scratch, range), !expected) << static_cast<uint32_t>(code);
    }
  }
  EXPECT_EQ(num_spaces, 25u);
}

TEST(OpenTokenizer, WhatIsNoRegularFileIsRefused) {
  const DataFolder folder;
  for (const char* name : {"t.json", "t.model"}) {
    ASSERT_EQ(::mkfifo(folder.file(name).c_str(), 0600), 0);
    expect_contains(message_of(ExitCode::data, [&] { open_tokenizer(folder.file(name)); }),
                    {name, "not a regular file"});
  }
  expect_contains(message_of(ExitCode::data, [] { open_tokenizer("/dev/zero"); }),
                  {"/dev/zero", "not a regular file"});
}

class TokenizerConfig : public testing::Test {
 protected:
  TokenizerConfig() { folder_.write("tokenizer.json", json_.dump()); }

  std::unique_ptr<Tokenizer> open_with(const std::string& config) const {
    folder_.write("tokenizer_config.json", config);
    return open_tokenizer(folder_.path());
  }
  std::string message(const std::string& config) const {
    return message_of(ExitCode::data, [&] { open_with(config); });
  }
  static std::vector<int32_t> list(std::span<const int32_t> ids) {
    return {ids.begin(), ids.end()};
  }

  DataFolder folder_;
  Json json_ = tokenizer_json(kMerges);
  const int32_t end_ = static_cast<int32_t>(json_["model"]["vocab"].size());
  const int32_t note_ = end_ + 1;
};

TEST_F(TokenizerConfig, SaysWhatBeginsAndEndsASequence) {
  const std::string names = R"("bos_token": "<note>", "eos_token": "<|end|>")";
  EXPECT_TRUE(open_with("{" + names + "}")->prefix_ids().empty());
  EXPECT_EQ(open_with("{" + names + "}")->bos_id(), note_);
  const auto both = open_with("{" + names + R"(, "add_bos_token": true, "add_eos_token": true})");
  EXPECT_EQ(list(both->prefix_ids()), std::vector<int32_t>{note_});
  EXPECT_EQ(list(both->suffix_ids()), std::vector<int32_t>{end_});
  EXPECT_EQ(both->document_bos_id(end_), note_);
  EXPECT_EQ(both->document_bos_id(note_), -1);
  const auto llama = open_with("{" + names + R"(, "tokenizer_class": "LlamaTokenizerFast"})");
  EXPECT_EQ(list(llama->prefix_ids()), std::vector<int32_t>{note_});
  expect_contains(message(R"({"add_bos_token": true})"),
                  {"add_bos_token", "there is no bos_token"});
  // A post-processor adds it, unless the key says no.
  json_["post_processor"] = Json::parse(R"({"type": "TemplateProcessing", "pair": [], "single": [
      {"SpecialToken": {"id": "<note>", "type_id": 0}},
      {"Sequence": {"id": "A", "type_id": 0}}]})");
  json_["post_processor"]["special_tokens"]["<note>"] = {
      {"id", "<note>"}, {"ids", {note_}}, {"tokens", {"<note>"}}};
  folder_.write("tokenizer.json", json_.dump());
  EXPECT_EQ(open_with("{" + names + "}")->document_bos_id(end_), note_);
  const auto none = open_with("{" + names + R"(, "add_bos_token": false})");
  EXPECT_EQ(none->document_bos_id(end_), -1);
}

TEST_F(TokenizerConfig, RefusesWhatChangesIds) {
  expect_contains(message(R"({"add_prefix_space": true})"),
                  {"tokenizer.json", "'add_prefix_space'", "is true", "same value"});
  expect_contains(message(R"({"do_lower_case": true})"),
                  {"tokenizer_config.json", "do_lower_case"});
  EXPECT_NO_THROW(open_with(R"({"add_prefix_space": false, "do_lower_case": false, "legacy": true,
      "bos_token": null, "model_max_length": 131072})"));
  json_["pre_tokenizer"]["add_prefix_space"] = true;
  folder_.write("tokenizer.json", json_.dump());
  EXPECT_NO_THROW(open_with(R"({"add_prefix_space": true})"));
  EXPECT_NO_THROW(open_with("{}"));
  expect_contains(message(R"({"add_prefix_space": false})"), {"'add_prefix_space'", "is false"});
}

TEST_F(TokenizerConfig, RefusesWhatItDoesNotUnderstand) {
  expect_contains(message("[]"), {"tokenizer_config.json"});
  expect_contains(message(R"({"eos_token": {"content": 5}})"), {"eos_token.content"});
  expect_contains(message(R"({"eos_token": 5})"), {"eos_token", "the name of a token"});
  expect_contains(message(R"({"add_bos_token": "yes"})"), {"add_bos_token"});
}

TEST(OpenTokenizer, FindsWhatAFolderHas) {
  const DataFolder folder;
  expect_contains(message_of(ExitCode::data, [&] { open_tokenizer(folder.path()); }),
                  {folder.path(), "neither tokenizer.json nor tokenizer.model"});
  const std::string json = folder.write("tokenizer.json", tokenizer_json(kMerges).dump());
  EXPECT_EQ(open_tokenizer(folder.path())->path(), json);
  EXPECT_EQ(open_tokenizer(json)->hash(), open_tokenizer(folder.path())->hash());
  EXPECT_EQ(open_tokenizer(json)->eos_id(), -1);

  folder.write("config.json", R"({"eos_token_id": [7, 8], "bos_token_id": 5})");
  EXPECT_EQ(open_tokenizer(json)->eos_id(), 7);
  folder.write("generation_config.json", R"({"eos_token_id": 9})");
  EXPECT_EQ(open_tokenizer(json)->eos_id(), 9);
  EXPECT_EQ(open_tokenizer(json)->bos_id(), 5);
  folder.write("tokenizer_config.json", R"({"eos_token": {"content": "<|end|>"}})");
  const auto tokenizer = open_tokenizer(json);
  EXPECT_EQ(tokenizer->piece(tokenizer->eos_id()), "<|end|>");
  EXPECT_EQ(tokenizer->files(),
            (std::vector<std::string>{json, folder.file("tokenizer_config.json")}));
  folder.write("tokenizer_config.json", R"({"eos_token": "<none>"})");
  expect_contains(message_of(ExitCode::data, [&] { open_tokenizer(json); }),
                  {"eos_token", "'<none>'"});

  folder.write("tokenizer_config.json", "{}");
  folder.write("tokenizer.json", R"({"model": {"type": "Unigram"}})");
  expect_contains(message_of(ExitCode::data, [&] { open_tokenizer(folder.path()); }),
                  {"tokenizer.json", "model.type", "'Unigram'"});
  train_tokenizer(std::vector<std::string>{"salt and sand and salt\n"}, 270,
                  folder.file("tokenizer.model"));
  EXPECT_EQ(open_tokenizer(folder.path())->path(), folder.file("tokenizer.model"));
}

}  // namespace
}  // namespace caravan
