#include "checkpoint/npy_header.h"

#include <array>
#include <cctype>
#include <optional>

#include "runtime/error.h"

namespace caravan {
namespace {

constexpr std::string_view kNpyMagic = "\x93NUMPY";
constexpr size_t kMostNpyDims = 32;

// Goes through the dictionary once; what is not of its form is an error.
class NpyDictionary {
 public:
  NpyDictionary(std::string_view text, const std::string& place) : text_(text), place_(place) {}

  NpyArray parse() {
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      value_of(key);
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (accept('\n')) skip_spaces();
    if (at_ != text_.size()) fail("something follows its dictionary");
    if (!type_ || !shape_ || !fortran_order_) fail("lacks descr, fortran_order or shape");
    return {.type = *type_, .shape = *shape_, .fortran_order = *fortran_order_};
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw checkpoint_error(
        absl::StrFormat("%s: damaged header of a .npy, near byte %d of %d: %s: "
                        "save it again with numpy.save or numpy.savez",
                        place_, at_, text_.size(), problem));
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool accept(char wanted) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!accept(wanted)) fail(absl::StrFormat("expected '%c'", wanted));
  }

  // No escapes: neither keys nor types have any.
  std::string quoted() {
    const char quote = accept('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos) fail("a text without end");
    const std::string_view text = text_.substr(at_, end - at_);
    if (text.find('\\') != std::string_view::npos) fail("a text with an escape");
    at_ = end + 1;
    return std::string(text);
  }

  void value_of(const std::string& key) {
    if (key == "descr" && !type_) {
      type_ = type();
    } else if (key == "fortran_order" && !fortran_order_) {
      fortran_order_ = boolean();
    } else if (key == "shape" && !shape_) {
      shape_ = shape();
    } else {
      fail("a key twice, or an unknown one");
    }
  }

  NpyType type() {
    skip_spaces();
    if (at_ < text_.size() && text_[at_] == '[') refuse_type("a record of several types");
    const std::string code = quoted();
    const std::array<std::pair<std::string_view, NpyType>, 5> kTypes = {{{"<f2", NpyType::f16},
                                                                         {"<f4", NpyType::f32},
                                                                         {"<f8", NpyType::f64},
                                                                         {"<i4", NpyType::i32},
                                                                         {"<i8", NpyType::i64}}};
    for (const auto& [text, type] : kTypes) {
      if (code == text) return type;
    }
    if (code.find('O') != std::string::npos) {
      refuse_type("an array of Python objects, which would run code when it is read");
    }
    if (code.starts_with('>')) refuse_type("an array of big-endian numbers");
    refuse_type("an array of another type");
  }

  [[noreturn]] void refuse_type(const char* what) const {
    throw checkpoint_error(
        absl::StrFormat("%s: is %s: save it as float16, float32, float64, int32 "
                        "or int64, little-endian",
                        place_, what));
  }

  bool boolean() {
    skip_spaces();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += word.size();
      return value;
    }
    fail("expected True or False");
  }

  Shape shape() {
    Shape result;
    expect('(');
    bool ends_with_comma = false;
    while (!accept(')')) {
      if (result.size() == kMostNpyDims) fail("more than 32 dims");
      if (!result.empty() && !ends_with_comma) fail("expected ',' or ')'");
      result.push_back(integer());
      ends_with_comma = accept(',');
    }
    if (result.size() == 1 && !ends_with_comma) fail("a shape of one number without comma");
    return result;
  }

  int64_t integer() {
    skip_spaces();
    int64_t value = 0;
    const size_t begin = at_;
    for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])); ++at_) {
      if (__builtin_mul_overflow(value, 10, &value) ||
          __builtin_add_overflow(value, text_[at_] - '0', &value)) {
        fail("a number that is too large");
      }
    }
    if (at_ == begin) fail("expected a number");
    return value;
  }

  std::string_view text_;
  const std::string& place_;
  size_t at_ = 0;
  std::optional<NpyType> type_;
  std::optional<Shape> shape_;
  std::optional<bool> fortran_order_;
};

// Where the dictionary begins and ends.
struct NpyFrame {
  size_t begin = 0;
  size_t end = 0;
};

NpyFrame find_dictionary(std::string_view bytes, const std::string& place) {
  const bool has_magic = bytes.size() >= 12 && bytes.starts_with(kNpyMagic);
  const auto byte = [&](size_t at) { return static_cast<size_t>(static_cast<uint8_t>(bytes[at])); };
  if (!has_magic || byte(6) < 1 || byte(6) > 3 || byte(7) != 0) {
    throw checkpoint_error(place +
                           ": is not a .npy of format 1.0, 2.0 or 3.0: save it with "
                           "numpy.save or numpy.savez");
  }
  const bool is_short = byte(6) == 1;
  const size_t length = byte(8) | byte(9) << 8 | (is_short ? 0 : byte(10) << 16 | byte(11) << 24);
  const size_t begin = is_short ? 10 : 12;
  if (length > bytes.size() - begin || begin + length > size_t{kLargestNpyHeader}) {
    throw checkpoint_error(
        absl::StrFormat("%s: damaged .npy: its header of %d bytes does not fit", place, length));
  }
  return {begin, begin + length};
}

}  // namespace

int64_t size_bytes(NpyType type) {
  constexpr std::array<int64_t, 5> kSizes = {2, 4, 8, 4, 8};
  return kSizes.at(static_cast<size_t>(type));
}

std::string_view name(NpyType type) {
  constexpr std::array<std::string_view, 5> kNames = {"f16", "f32", "f64", "i32", "i64"};
  return kNames.at(static_cast<size_t>(type));
}

NpyArray parse_npy_header(std::string_view begin, int64_t size_bytes, const std::string& place) {
  const NpyFrame frame = find_dictionary(begin, place);
  NpyArray array = NpyDictionary(begin.substr(frame.begin, frame.end - frame.begin), place).parse();
  array.data_offset = static_cast<int64_t>(frame.end);
  array.num_elements = 1;
  int64_t bytes = 0;
  bool fits = true;
  for (const int64_t extent : array.shape) {
    fits = fits && !__builtin_mul_overflow(array.num_elements, extent, &array.num_elements);
  }
  fits =
      fits && !__builtin_mul_overflow(array.num_elements, caravan::size_bytes(array.type), &bytes);
  if (fits && bytes == size_bytes - array.data_offset) return array;
  throw checkpoint_error(absl::StrFormat(
      "%s: damaged .npy: its shape and type %s do not make the %d bytes that follow its header: "
      "save or copy it again",
      place, name(array.type), size_bytes - array.data_offset));
}

}  // namespace caravan
