// How scalars are read. Not by yaml-cpp: it takes 010 for 8 and refuses 1e3 as an integer.
#include <charconv>
#include <cmath>

#include "absl/strings/ascii.h"
#include "launch/yaml.h"

namespace caravan {
namespace {

// A number taken apart: sign, digits before and after the point, decimal exponent.
struct Number {
  bool negative = false;
  std::string whole, fraction;
  int exponent = 0;
};

// Digits with single underscores between them, moved from the front of `text`; false if malformed.
bool take_digits(std::string_view& text, std::string& digits) {
  bool after_digit = false;
  while (!text.empty() && (absl::ascii_isdigit(text[0]) || text[0] == '_')) {
    if (text[0] == '_') {
      const bool between = after_digit && text.size() > 1 && absl::ascii_isdigit(text[1]);
      if (!between) return false;
    } else {
      digits.push_back(text[0]);
    }
    after_digit = text[0] != '_';
    text.remove_prefix(1);
  }
  return true;
}

bool take(std::string_view& text, char wanted) {
  if (text.empty() || text[0] != wanted) return false;
  text.remove_prefix(1);
  return true;
}

bool take_exponent(std::string_view& text, int& exponent) {
  if (!take(text, 'e') && !take(text, 'E')) return true;
  const bool negative = take(text, '-');
  if (!negative) take(text, '+');
  std::string digits;
  if (!take_digits(text, digits) || digits.empty() || digits.size() > 4) return false;
  exponent = std::stoi(digits) * (negative ? -1 : 1);
  return true;
}

std::optional<Number> parse_number(std::string_view text) {
  Number number;
  number.negative = take(text, '-');
  if (!number.negative) take(text, '+');
  if (!take_digits(text, number.whole)) return {};
  if (take(text, '.') && !take_digits(text, number.fraction)) return {};
  if (number.whole.empty() && number.fraction.empty()) return {};
  if (!take_exponent(text, number.exponent) || !text.empty()) return {};
  // Others read 010 as octal: who means eight or ten is not for us to guess.
  if (number.whole.size() > 1 && number.whole[0] == '0') return {};
  return number;
}

}  // namespace

std::optional<int64_t> parse_integer(std::string_view text) {
  const std::optional<Number> number = parse_number(text);
  if (!number || text.find('.') == text.size() - 1) return {};
  std::string digits = number->whole + number->fraction;
  int64_t exponent = number->exponent - static_cast<int64_t>(number->fraction.size());
  for (; exponent < 0 && !digits.empty() && digits.back() == '0'; ++exponent) digits.pop_back();
  digits.erase(0, digits.find_first_not_of('0'));
  if (digits.empty()) return 0;
  if (exponent < 0 || static_cast<int64_t>(digits.size()) + exponent > 19) return {};
  digits.append(exponent, '0');
  if (number->negative) digits.insert(0, "-");
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc{}) return {};
  return value;
}

std::optional<double> parse_real(std::string_view text) {
  const std::optional<Number> number = parse_number(text);
  if (!number) return {};
  const std::string plain = (number->negative ? "-0" : "0") + number->whole + "." +
                            number->fraction + "0e" + std::to_string(number->exponent);
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (error != std::errc{} || !std::isfinite(value)) return {};
  return value;
}

std::optional<bool> parse_boolean(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return {};
}

}  // namespace caravan
