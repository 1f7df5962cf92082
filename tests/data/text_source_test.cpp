#include "data/text_source.h"

#include <simdjson.h>
#include <sys/resource.h>
#include <zlib.h>

#include <nlohmann/json.hpp>

#include "support.h"

namespace caravan {
namespace {

std::string gzip(const DataFolder& folder, const std::string& name, const std::string& content) {
  const std::string path = folder.file(name);
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
  return path;
}

std::vector<std::string> read_all(TextSource& source) {
  std::vector<std::string> documents;
  for (std::string document; source.next(document);) documents.push_back(document);
  return documents;
}

std::vector<std::string> read_all(const std::vector<std::string>& inputs) {
  TextSource source(list_text_files(inputs));
  return read_all(source);
}

TEST(TextSource, ListsAFolderInOrder) {
  const DataFolder folder;
  folder.write("b/2.txt", "two");
  folder.write("b/1.rst.txt", "one");
  folder.write("a.md", "zero");
  folder.write("c.rst", "three");
  folder.write("ignored.png", "x");
  folder.write("b/ignored", "x");
  gzip(folder, "d.txt.gz", "four");
  EXPECT_EQ(read_all({folder.path()}),
            (std::vector<std::string>{"zero", "one", "two", "three", "four"}));
  EXPECT_EQ(read_all({folder.file("c.rst"), folder.file("b")}),
            (std::vector<std::string>{"three", "one", "two"}));
}

TEST(TextSource, ReadsJsonLines) {
  const DataFolder folder;
  folder.write("a.jsonl",
               "{\"text\": \"one\\n\\u00e9\", \"id\": 7}\r\n\n{\"text\":\"\"}\n"
               "{\"id\": 1, \"text\": \"two\"}");
  gzip(folder, "b.jsonl.gz", "{\"text\":\"three\"}\n");
  TextSource source(list_text_files({folder.path()}));
  EXPECT_EQ(read_all(source), (std::vector<std::string>{"one\n\xC3\xA9", "two", "three"}));
  EXPECT_EQ(
      source.statistics(),
      (TextStatistics{
          .num_documents = 3, .num_bytes = 14, .num_empty = 1, .num_cuts = 0, .num_replaced = 0}));
}

TEST(TextSource, JsonLinesOfAnySizeMeetTheReadBuffer) {
  const DataFolder folder;
  std::string lines;
  std::vector<std::string> expected;
  for (size_t size = 1; size < 2'000'000; size = size * 3 + 1) {
    expected.push_back(std::string(size, static_cast<char>('a' + size % 26)));
    lines += nlohmann::json{{"text", expected.back()}}.dump() + "\n";
  }
  folder.write("a.jsonl", lines);
  EXPECT_EQ(read_all({folder.path()}), expected);
}

TEST(TextSource, BadJsonNamesFileAndLine) {
  const DataFolder folder;
  const auto message = [&](const std::string& line) {
    const std::string path = folder.write("bad.jsonl", "{\"text\":\"fine\"}\n" + line + "\n");
    const std::string text = message_of(ExitCode::data, [&] { read_all({path}); });
    expect_contains(text, {path + ":2: ", "{\"text\": \"...\"}"});
    return text;
  };
  expect_contains(message("{\"text\": \"cut"), {"not valid JSON"});
  expect_contains(message("{\"text\": \"a\"} {\"text\": \"b\"}"), {"not valid JSON"});
  expect_contains(message("{\"content\": \"a\"}"), {"no field \"text\""});
  expect_contains(message("{\"text\": 7}"), {"no field \"text\""});
  expect_contains(message("[1, 2]"), {"no field \"text\""});
  expect_contains(message("\"text\""), {"no field \"text\""});
  expect_contains(message(std::string(5000, '[')), {"not valid JSON"});
}

TEST(TextSource, ReplacesWhatIsNotUtf8) {
  const DataFolder folder;
  folder.write("a.txt", "caf\xE9 latin");
  folder.write("b.jsonl", "{\"text\": \"x\xFFy\"}\n");
  TextSource source(list_text_files({folder.path()}));
  EXPECT_EQ(read_all(source),
            (std::vector<std::string>{"caf\xEF\xBF\xBD latin", "x\xEF\xBF\xBDy"}));
  EXPECT_EQ(source.statistics().num_replaced, 2);
}

TEST(TextSource, SkipsEmptyDocumentsAndByteOrderMarks) {
  const DataFolder folder;
  folder.write("a.txt", "");
  folder.write("b.txt", " \n\t\n");
  folder.write("c.txt", "\xEF\xBB\xBFtext");
  folder.write("d.jsonl", "\xEF\xBB\xBF{\"text\": \"json\"}\n");
  folder.write("e.jsonl", "");
  TextSource source(list_text_files({folder.path()}));
  EXPECT_EQ(read_all(source), (std::vector<std::string>{"text", "json"}));
  EXPECT_EQ(source.statistics().num_empty, 2);
}

TEST(TextSource, CutsLongDocumentsAtLines) {
  const DataFolder folder;
  std::string text;
  for (int line = 0; text.size() < 1'000'000; ++line) text += "line " + std::to_string(line) + "\n";
  text += std::string(5000, 'x') + "\xC3\xA9" + std::string(5000, 'y');
  folder.write("a.txt", text);
  folder.write("b.jsonl", nlohmann::json{{"text", text}}.dump());
  TextSource source(list_text_files({folder.path()}), 1000);
  std::string joined;
  int num_lines_cut = 0;
  for (const std::string& piece : read_all(source)) {
    ASSERT_LE(piece.size(), 1000u);
    ASSERT_TRUE(simdjson::validate_utf8(piece));
    num_lines_cut += piece.back() != '\n' ? 1 : 0;
    joined += piece;
  }
  EXPECT_EQ(joined, text + text);
  EXPECT_LE(num_lines_cut, 2 * 11);  // only the line of 10,002 bytes
  EXPECT_EQ(source.statistics().num_replaced, 0);
  EXPECT_EQ(source.statistics().num_cuts, source.statistics().num_documents - 2);
}

TEST(TextSource, SaysWhatIsMissing) {
  const DataFolder folder;
  const auto message = [&](const std::string& input) {
    return message_of(ExitCode::data, [&] { list_text_files({input}); });
  };
  expect_contains(message(folder.path()), {folder.path(), "no text found", ".txt", ".jsonl"});
  expect_contains(message(folder.file("nothing")), {"nothing: no such file"});
  expect_contains(message(folder.write("a.pdf", "x")), {"a.pdf", ".txt", ".jsonl"});
}

TEST(TextSource, RefusesADamagedGzipFile) {
  const DataFolder folder;
  std::string text;
  for (int i = 0; i < 100000; ++i) text += std::to_string(i * 7919 % 100003) + " ";
  const std::string path = gzip(folder, "a.txt.gz", text);
  EXPECT_EQ(read_all({path}), std::vector<std::string>{text});
  const auto size = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, size / 2);
  expect_contains(message_of(ExitCode::data, [&] { read_all({path}); }), {path, "cannot read"});
  std::filesystem::resize_file(path, size);  // zeros at the end
  expect_contains(message_of(ExitCode::data, [&] { read_all({path}); }), {path, "cannot read"});
}

TEST(TextSource, RefusesTextThatOnlyIsNamedGzip) {
  const DataFolder folder;
  for (const char* text : {"plain text", ""}) {
    const std::string path = folder.write("a.txt.gz", text);
    expect_contains(message_of(ExitCode::data, [&] { read_all({path}); }),
                    {path + ": is not gzip", "rename it without .gz"});
  }
  EXPECT_EQ(read_all({gzip(folder, "a.txt.gz", "text")}), std::vector<std::string>{"text"});
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

// 160 MB of text may not need more than a small part of that, however it is stored.
TEST(TextSource, MemoryDoesNotGrowWithTheInput) {
  const DataFolder folder;
  const std::string document(2000, 'm');
  const std::string line = nlohmann::json{{"text", document}}.dump() + "\n";
  std::string block;
  for (int i = 0; i < 500; ++i) block += line;
  {
    std::ofstream json(folder.file("a.jsonl"), std::ios::binary);
    std::ofstream text(folder.file("b.txt"), std::ios::binary);
    for (int i = 0; i < 80; ++i) json << block, text << block;
  }
  const int64_t before = peak_resident_bytes();
  TextSource source(list_text_files({folder.path()}), 1 << 20);
  for (std::string document_read; source.next(document_read);) {
  }
  EXPECT_GT(source.statistics().num_bytes, 150'000'000);
  EXPECT_LT(peak_resident_bytes() - before, 30'000'000);
}

}  // namespace
}  // namespace caravan
