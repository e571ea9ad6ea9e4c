#include "names.hpp"

#include <algorithm>
#include <cstring>

namespace kato {

namespace {

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::optional<Name> parse_name(std::string_view text) {
  if (text.size() != kNameDigits) return std::nullopt;
  Name name;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    name[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return name;
}

std::string format_name(const Name& name) {
  std::string digits;
  digits.reserve(kNameDigits);
  for (const std::uint8_t byte : name) {
    digits += "0123456789abcdef"[byte >> 4];
    digits += "0123456789abcdef"[byte & 15];
  }
  return digits;
}

void NameTable::enlarge() {
  slots_.assign(std::max<std::size_t>(8, slots_.size() * 2), 0);
  count_ = 0;
}

void NameTable::insert(const Name& name, std::uint32_t id) {
  std::size_t at = home(name);
  while (slots_[at]) at = next(at);
  slots_[at] = id + 1;
  ++count_;
}

std::size_t NameTable::hash(const Name& name) {
  // Names are digests, but nothing forces a caller to choose them so: mix all bytes.
  std::uint64_t words[3] = {};
  std::memcpy(words, name.data(), name.size());
  std::uint64_t hash = words[0];
  for (const std::uint64_t word : {words[1], words[2]}) {
    hash = (hash ^ hash >> 32) * 0xFF51AFD7ED558CCDull + word;
  }
  hash = (hash ^ hash >> 33) * 0xC4CEB9FE1A85EC53ull;
  return hash ^ hash >> 31;
}

}  // namespace kato
