// The reader of JSON that is not trusted: kinds, limits, keys that are there twice or unknown, and
// what messages say. What the readers of files make of it is tested where they are.
#include "runtime/json.h"

#include <gtest/gtest.h>

#include <functional>

namespace caravan {
namespace {

JsonText parsed(std::string_view text) { return {text, 8, "x.json", ExitCode::data}; }

std::string error_of(std::string_view text, const std::function<void(JsonKeys&)>& action) {
  try {
    const JsonText json = parsed(text);
    JsonKeys keys = json.keys();
    action(keys);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::data);
    return error.what();
  }
  return "";
}
std::string error_of(std::string_view text) {
  return error_of(text, [](JsonKeys&) {});
}

TEST(Json, ReadsEveryKind) {
  const JsonText json = parsed(
      R"({"i": -3, "r": 2, "b": true, "t": "a\u00e9", "is": [1, 2], "ts": ["x"], "o": {"k": 1}})");
  JsonKeys keys = json.keys();
  EXPECT_EQ(keys.integer("i", kAnyInteger), -3);
  EXPECT_EQ(keys.real("r"), 2.0);
  EXPECT_EQ(keys.boolean("b"), true);
  EXPECT_EQ(keys.text("t"), "a\xC3\xA9");
  EXPECT_EQ(keys.integers("is", {1, 2}, 2), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(keys.texts("ts", 1), std::vector<std::string>{"x"});
  EXPECT_EQ(keys.rest(), std::vector<std::string>{"o"});
  EXPECT_EQ(keys.need_object("o").need_integer("k"), 1);
  keys.finish();
}

TEST(Json, NullIsAbsentButThere) {
  const JsonText json = parsed(R"({"a": null})");
  JsonKeys keys = json.keys();
  EXPECT_TRUE(keys.has("a") && keys.is_null("a"));
  EXPECT_FALSE(keys.has("b") || keys.is_null("b"));
  EXPECT_EQ(keys.rest().size(), 1U);
  EXPECT_FALSE(keys.integer("a").has_value() || keys.text("b").has_value());
  EXPECT_TRUE(keys.rest().empty());
}

TEST(Json, SaysWhatIsThereAndWhatMustBe) {
  const std::string text = R"({"o": {"a": 7, "n": null, "l": [1, "2"]}})";
  const auto message = [&](void (*read)(JsonKeys&)) {
    return error_of(text, [&](JsonKeys& keys) {
      JsonKeys inner = keys.need_object("o");
      read(inner);
    });
  };
  EXPECT_EQ(message([](auto& keys) { keys.text("a"); }), "x.json: key 'o.a' is 7; it must be text");
  EXPECT_EQ(message([](auto& keys) {
              keys.integer("a", {1, 6});
            }),
            "x.json: key 'o.a' is 7; it must be an integer from 1 to 6");
  EXPECT_EQ(message([](auto& keys) {
              keys.integer("a", {8, INT64_MAX});
            }),
            "x.json: key 'o.a' is 7; it must be an integer from 8");
  EXPECT_EQ(message([](auto& keys) { keys.integer("l", kAnyInteger); }),
            "x.json: key 'o.l' is [1,\"2\"]; it must be an integer");
  EXPECT_EQ(message([](auto& keys) {
              keys.real("a", {0, 0.5});
            }),
            "x.json: key 'o.a' is 7; it must be a number from 0 to 0.5");
  EXPECT_EQ(message([](auto& keys) { keys.boolean("a"); }),
            "x.json: key 'o.a' is 7; it must be true or false");
  EXPECT_EQ(message([](auto& keys) { keys.need_text("n"); }),
            "x.json: key 'o.n' is null; it must be text");
  EXPECT_EQ(message([](auto& keys) { keys.need_list("z"); }),
            "x.json: key 'o.z' is absent; it must be a list");
  EXPECT_EQ(message([](auto& keys) { keys.need_entries("l"); }),
            "x.json: key 'o.l' is [1,\"2\"]; it must be an object");
  EXPECT_EQ(message([](auto& keys) { keys.integers("l", {}, 4); }),
            "x.json: key 'o.l' is [1,\"2\"]; it must be a list of at most 4 integers from 0");
  EXPECT_EQ(message([](auto& keys) { keys.texts("l", 1); }),
            "x.json: key 'o.l' is [1,\"2\"]; it must be a list of at most 1 texts");
}

TEST(Json, RefusesKeysThatAreThereTwiceOrUnknown) {
  EXPECT_EQ(error_of(R"({"b": 1, "a": 1, "b": 2})"), "x.json: the file has the key 'b' twice");
  EXPECT_EQ(error_of(R"({"a": {"b": 1, "b": 1}})", [](JsonKeys& keys) { keys.object("a"); }),
            "x.json: key 'a' has the key 'b' twice");
  EXPECT_EQ(error_of(R"({"c": 1, "b\n": 1, "a": 1})",
                     [](JsonKeys& keys) {
                       keys.take("a");
                       keys.finish();
                     }),
            "x.json: the file has the unknown key 'b?'");
  EXPECT_EQ(error_of("[]"), "x.json: the file is not an object");
}

TEST(Json, NamesElementsAndOwners) {
  const auto second = [](JsonKeys& keys) {
    keys.each("steps", [](JsonKeys step) { step.need_integer("id"); });
  };
  EXPECT_EQ(error_of(R"({"steps": [{"id": 1}, {"id": "2"}]})", second),
            "x.json: key 'steps[1].id' is \"2\"; it must be an integer from 0");
  EXPECT_EQ(error_of(R"({"steps": [{"id": 1}, 2]})", second),
            "x.json: key 'steps[1]' is not an object");
  const auto owned = [](JsonKeys& keys) {
    const JsonText other = parsed(R"({"a": 1})");
    JsonKeys mine(other, other.root(), "", "tensor 'w'");
    keys.has("a") ? mine.finish() : mine.refuse("a", "2");
  };
  EXPECT_EQ(error_of("{}", owned), "x.json: tensor 'w': key 'a' is 1; it must be 2");
  EXPECT_EQ(error_of(R"({"a": 1})", owned), "x.json: tensor 'w' has the unknown key 'a'");
}

TEST(Json, KeepsToItsDepth) {
  EXPECT_EQ(error_of(R"({"a": [[[[[1]]]]]})"), "");
  EXPECT_NE(error_of(R"({"a": [[[[[[[[1]]]]]]]]})").find("x.json: not valid JSON: "),
            std::string::npos);
  EXPECT_NE(error_of(std::string(100'000, '[')), "");
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("{} {}"), "");
}

TEST(Json, MessagesAreShortLines) {
  EXPECT_EQ(in_quotes("a\nb\x7F"), "'a?b?'");
  EXPECT_EQ(in_quotes(std::string(80, 'x')), "'" + std::string(80, 'x') + "'");
  EXPECT_EQ(in_quotes(std::string(81, 'x')), "'" + std::string(80, 'x') + "...'");
  // A character of two bytes lies across the cut.
  EXPECT_EQ(in_quotes(std::string(79, 'x') + "\xC3\xA9"), "'" + std::string(79, 'x') + "...'");
  EXPECT_EQ(in_quotes(std::string(78, 'x') + "\xC3\xA9y"),
            "'" + std::string(78, 'x') + "\xC3\xA9...'");
  EXPECT_EQ(shown(parsed(R"([{}, [], {"a": [null, true], "b": "\n"}, -1.5])").root()),
            R"([{},[],{"a":[null,true],"b":"\n"},-1.5])");
  std::string large = "[1";
  for (int i = 0; i < 100'000; ++i) large += ",[1]";
  EXPECT_EQ(shown(parsed(large + "]").root()).size(), 83U);
}

}  // namespace
}  // namespace caravan
