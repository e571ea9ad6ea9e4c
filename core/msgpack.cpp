#include "msgpack.hpp"

#include <cstdint>
#include <cstring>

namespace kato {

namespace {

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  std::uint32_t array() {
    const std::uint8_t type = byte();
    if ((type & 0xF0) == 0x90) return type & 0x0F;
    if (type == 0xDC) return number(2);
    if (type == 0xDD) return number(4);
    throw MalformedEvents("events are not an array of arrays");
  }

  std::string_view string() {
    const std::uint8_t type = byte();
    if ((type & 0xE0) == 0xA0) return take(type & 0x1F);
    if (type == 0xD9) return take(number(1));
    if (type == 0xDA) return take(number(2));
    if (type == 0xDB) return take(number(4));
    throw MalformedEvents("a symbol is not a string");
  }

  bool finished() const { return rest_.empty(); }

 private:
  std::string_view take(std::size_t size) {
    if (size > rest_.size()) throw MalformedEvents("events end too early");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::uint8_t byte() { return static_cast<std::uint8_t>(take(1)[0]); }

  std::uint32_t number(unsigned size) {
    std::uint32_t value = 0;
    for (const char c : take(size)) value = value << 8 | static_cast<std::uint8_t>(c);
    return value;
  }

  std::string_view rest_;
};

}  // namespace

void read_events(std::string_view bytes, std::vector<Token>& tokens) {
  Reader reader(bytes);
  const std::uint32_t events = reader.array();
  if (events == 0) throw MalformedEvents("a pattern without events");
  for (std::uint32_t event = 0; event < events; ++event) {
    const std::uint32_t symbols = reader.array();
    if (symbols == 0) throw MalformedEvents("an event without symbols");
    for (std::uint32_t i = 0; i < symbols; ++i) {
      const std::string_view text = reader.string();
      if (!is_utf8(text)) throw MalformedEvents("a symbol is not UTF-8");
      tokens.push_back({text, i == 0});
    }
  }
  if (!reader.finished()) throw MalformedEvents("bytes after the events");
}

bool is_utf8(std::string_view text) {
  const auto* next = reinterpret_cast<const std::uint8_t*>(text.data());
  const std::uint8_t* const end = next + text.size();
  while (next < end) {
    std::uint64_t eight;
    while (end - next >= 8 && (std::memcpy(&eight, next, 8), (eight & 0x8080808080808080ull) == 0)) next += 8;
    if (next == end) return true;
    const std::uint8_t lead = *next++;
    if (lead < 0x80) continue;
    const int following = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || end - next < following) return false;
    // The second byte rules out longer forms than needed, surrogates and code points beyond the last.
    const std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (*next < low || *next > high) return false;
    for (int i = 1; i < following; ++i) {
      if ((next[i] & 0xC0) != 0x80) return false;
    }
    next += following;
  }
  return true;
}

}  // namespace kato
