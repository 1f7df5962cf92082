// What the strict reader accepts, and that each thing it refuses is named with its place.
#include "launch/yaml.h"

#include <sys/stat.h>

#include <fstream>

#include "launch/nearest_name.h"
#include "tests/launch/messages.h"
#include "tests/support/text.h"

namespace caravan {
namespace {

std::string message_of(std::string_view text) {
  return config_message([&] { parse_yaml(text, "a.yaml"); });
}

void expect_message(std::string_view text, const std::string& message) {
  EXPECT_EQ(message_of(text), message) << printable(text);
}

TEST(Yaml, BuildsATreeWithPlaces) {
  const YamlNode root = parse_yaml("a: 1\nb:\n  c: [x, \"2\", {d: ~}]\n", "a.yaml");
  ASSERT_EQ(root.kind, YamlNode::Kind::map);
  EXPECT_EQ(root.find("a")->text, "1");
  EXPECT_EQ(root.entries[1].where, "a.yaml:2:1");
  const YamlNode* list = root.find("b")->find("c");
  ASSERT_EQ(list->items.size(), 3u);
  EXPECT_EQ(list->where, "a.yaml:3:6");
  EXPECT_FALSE(list->items[0].quoted);
  EXPECT_TRUE(list->items[1].quoted);
  EXPECT_EQ(list->items[2].find("d")->kind, YamlNode::Kind::null);
  EXPECT_EQ(root.find("nothing"), nullptr);
}

TEST(Yaml, AcceptsAnEmptyDocumentAndComments) {
  EXPECT_EQ(parse_yaml("", "a.yaml").kind, YamlNode::Kind::null);
  EXPECT_EQ(parse_yaml("# only a comment\n", "a.yaml").kind, YamlNode::Kind::null);
  EXPECT_EQ(parse_yaml("---\na: 1\n...\n", "a.yaml").find("a")->text, "1");
  EXPECT_EQ(parse_yaml("a: 1\r\nb: 2\r\n", "a.yaml").find("b")->text, "2");
}

TEST(Yaml, RefusesAnchorsAndAliases) {
  const std::string refusal = ": anchors and aliases are not supported; write the value out";
  expect_message("a: &x [1]\n", "a.yaml:1:4" + refusal);
  expect_message("a: &a [*a]\n", "a.yaml:1:4" + refusal);
  expect_message("a: &x 1\nb: *x\n", "a.yaml:1:4" + refusal);
  EXPECT_NE(message_of("b: *x\n").find("anchors and aliases"), std::string::npos);
}

TEST(Yaml, RefusesAnAliasBombAtItsFirstAnchor) {
  expect_message(alias_bomb(),
                 "a.yaml:1:5: anchors and aliases are not supported; write the value out");
}

TEST(Yaml, RefusesWhatConfigurationsDoNotNeed) {
  expect_message("<<: {a: 1}\n",
                 "a.yaml:1:1: merge keys ('<<') are not supported; write the values out");
  expect_message("a: 1\nb: 2\na: 3\n",
                 "a.yaml:3:1: duplicate key 'a'; it was given before, remove one");
  expect_message("[1, 2]: 3\n",
                 "a.yaml:1:1: a list is not closed (add ']'), or stands where a key must");
  expect_message("? {a: 1}\n: 3\n",
                 "a.yaml:1:3: a map is not closed (add '}'), or stands where a key must");
  expect_message("~: 3\n", "a.yaml:1:1: a key is missing; write 'name: value'");
  expect_message("a: !!python/object:os.system 1\n",
                 "a.yaml:1:4: tag 'tag:yaml.org,2002:python/object:os.system' is not supported; "
                 "remove it");
  expect_message(
      "a: 1\n---\nb: 2\n",
      "a.yaml:2:1: the document ended above; check the indentation, and keep to one document");
  expect_message("a: |\n  two\n  lines\n",
                 "a.yaml:1:4: a value holds a line break or control character; write it on one "
                 "line");
}

TEST(Yaml, ExplainsBrokenSyntax) {
  expect_message("a: [1, 2\nb: 3\n", "a.yaml:2:2: a list is not closed; add ']'");
  expect_message("[1, 2", "a.yaml:1:1: a list is not closed (add ']'), or stands where a key must");
  expect_message("a: {b: 1\nc: 2\n", "a.yaml:2:2: a map is not closed; add '}'");
  expect_message("a: 'x", "a.yaml:1:6: a text is not closed; add the quote");
  expect_message("a: @x\n", "a.yaml:1:4: no value begins like this; put it in quotes");
  expect_message("a: 1\n b: 2\n",
                 "a.yaml:2:3: a ':' where no key can stand; check the indentation, and the blank "
                 "after each ':'");
  expect_message(" a: 1\nb: 2\n",
                 "a.yaml:2:1: the document ended above; check the indentation, and keep to one "
                 "document");
}

TEST(Yaml, RefusesCharactersThatMislead) {
  expect_message("a:\n\tb: 1\n", "a.yaml:2:1: a tab in the indentation; use spaces");
  expect_message("a:\n  \tb: 1\n", "a.yaml:2:1: a tab in the indentation; use spaces");
  expect_message(std::string("a: 1\nb: \0", 9),
                 "a.yaml:2:1: control character 0x00; save the file as UTF-8 text");
  expect_message("a: \"\\0\"\n",
                 "a.yaml:1:4: a value holds a line break or control character; write it on one "
                 "line");
  expect_message("a: \xff\xfe\n", "a.yaml: not valid UTF-8; save the file as UTF-8 text");
}

TEST(Yaml, KeepsItsBounds) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(message_of(nested(kYamlMaxDepth)), "");
  expect_message(nested(kYamlMaxDepth + 1), "a.yaml:1:33: nested more than 32 deep");
  std::string many = "[";
  for (int i = 0; i < kYamlMaxNodes; ++i) many += "1,\n";
  EXPECT_NE(message_of(many + "]").find("more than 20000 values"), std::string::npos);
  expect_message(std::string(kYamlMaxBytes + 1, ' '),
                 "a.yaml: larger than 262144 bytes; a configuration is far smaller");
}

TEST(Yaml, RefusesHostileTextWithAMessage) {
  const auto repeated = [](std::string_view unit, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += unit;
    return text;
  };
  for (const std::string& text :
       {repeated("[", 100'000), repeated("{", 100'000), repeated("? ", 50'000),
        repeated("- ", 100'000), repeated("!", 1'000'000), repeated("a: {", 50'000),
        repeated("&a ", 50'000), std::string("a: [1, 2"), std::string("a: 'x"),
        std::string("a: b: c"), std::string("%YAML 9.9\n---\na: 1\n"), std::string("a: 1\n]\n"),
        std::string("\"\\xZZ\"")}) {
    const std::string message = message_of(text);
    EXPECT_EQ(message.find("a.yaml"), 0u) << printable(text) << " -> " << message;
    EXPECT_LT(message.size(), 300u) << printable(text);
  }
}

TEST(Yaml, ReplacesEnvironmentVariables) {
  const ScopedVariable steps("CARAVAN_TEST_STEPS", "12");
  const YamlNode root =
      parse_yaml("a: ${env:CARAVAN_TEST_STEPS}\nb: \"x${env:CARAVAN_TEST_STEPS}y\"\n", "a.yaml");
  EXPECT_EQ(root.find("a")->text, "12");
  EXPECT_FALSE(root.find("a")->quoted);
  EXPECT_EQ(root.find("b")->text, "x12y");
  expect_message("a: ${env:CARAVAN_TEST_UNSET}\n",
                 "a.yaml:1:4: environment variable 'CARAVAN_TEST_UNSET' is not set; export "
                 "CARAVAN_TEST_UNSET=...");
  expect_message("a: ${output_dir}/x\n",
                 "a.yaml:1:4: '${' begins ${env:NAME}, the only interpolation that there is");
}

TEST(Yaml, DoesNotReplaceInsideWhatWasReplaced) {
  const ScopedVariable tricky("CARAVAN_TEST_TRICKY", "${env:HOME}");
  expect_message("a: ${env:CARAVAN_TEST_TRICKY}\n",
                 "a.yaml:1:4: environment variable 'CARAVAN_TEST_TRICKY' contains '${'");
}

// Opening the pipe would wait for a writer that never comes.
TEST(Yaml, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  const std::string pipe = folder / "pipe.yaml";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const std::string fix =
      ": is a pipe or a device; write the configuration to a file and give that";
  EXPECT_EQ(config_message([&] { load_yaml(pipe); }), pipe + fix);
  EXPECT_EQ(config_message([&] { load_yaml("/dev/null"); }), "/dev/null" + fix);
}

TEST(Yaml, AppliesOverrides) {
  YamlNode root = parse_yaml("a: {b: 1}\nlist: [1]\n", "a.yaml");
  apply_override(root, "a.b=2");
  apply_override(root, "a.c=[x, y]");
  apply_override(root, "new.deep.key=3e-4");
  apply_override(root, "a.text=x=y");
  EXPECT_EQ(root.find("a")->find("b")->text, "2");
  EXPECT_EQ(root.find("a")->find("b")->where, "command line");
  EXPECT_EQ(root.find("a")->find("c")->items.size(), 2u);
  EXPECT_EQ(root.find("new")->find("deep")->find("key")->text, "3e-4");
  EXPECT_EQ(root.find("a")->find("text")->text, "x=y");
  EXPECT_EQ(config_message([&] { apply_override(root, "steps"); }),
            "command line: 'steps' is not key=value; write for example train.max_steps=100");
  EXPECT_EQ(config_message([&] { apply_override(root, "list.0=2"); }),
            "command line: 'list.0' goes into a value that is not a section; give the whole value");
  EXPECT_EQ(config_message([&] { apply_override(root, "a.b=[1"); }),
            "command line: a list is not closed (add ']'), or stands where a key must");
}

TEST(Yaml, EmitsWhatItReadsBack) {
  const std::string text =
      "a: 1\nb:\n  c: [x, \"2\", {d: null}]\n  e: \"a \\\"b\\\" \\\\ #\"\nempty: {}\n";
  const YamlNode root = parse_yaml(text, "a.yaml");
  EXPECT_EQ(emit_yaml(root), text);
  for (const char* hard :
       {"true", "auto", "null", "~", "12", "1e3", "", " x", "a: b", "#", "-", "x "}) {
    const YamlNode node = parse_yaml(inline_yaml(yaml_string(hard)), "a.yaml");
    EXPECT_EQ(node.kind, YamlNode::Kind::scalar) << hard;
    EXPECT_EQ(node.text, hard);
    EXPECT_TRUE(node.quoted) << hard;
  }
}

TEST(Yaml, LoadsFilesAndExplainsWhenItCannot) {
  const TemporaryFolder folder;
  std::ofstream(folder / "quickstart.yaml") << "a: 1\n";
  EXPECT_EQ(load_yaml(folder / "quickstart.yaml").find("a")->text, "1");
  EXPECT_EQ(config_message([&] { load_yaml(folder / "quickstrat.yaml"); }),
            (folder / "quickstrat.yaml") + ": No such file or directory; did you mean '" +
                (folder / "quickstart.yaml") + "'?");
  EXPECT_EQ(config_message([&] { load_yaml(folder.path()); }),
            folder.path() + ": is a folder; give a configuration file in it");
}

}  // namespace
}  // namespace caravan
