// JPEG, baseline and progressive, 8 bits, with the arithmetic of libjpeg's default path, so that pixels equal
// Pillow's: the accurate integer inverse DCT, triangle ("fancy") upsampling of chroma, 16-bit fixed-point
// colour conversion.
//
// Why not stb_image here: version 2.27 writes beyond its Huffman tables when a file announces more than 256
// codes, and differs from libjpeg by up to 7 levels at the right edge of subsampled pictures (81 in a picture
// 3 pixels wide).
//
// Damage inside a scan is decoded as libjpeg does (bad codes give zeros; after a marker that comes too early the
// scan adds nothing up to the restart that its number names); a file that ends inside a scan is status::truncated.
// Not supported: arithmetic coding, lossless, 12 bits, a height given after the scan (DNL).
//
// References: ITU-T T.81; T.871 (JFIF); libjpeg jdhuff.c, jdphuff.c, jdmarker.c, jdsample.c, jdcolor.c for
// roundings and damage.
#pragma once

#include <ocellus/image/decode.hpp>
#include <ocellus/image/jpeg_entropy.hpp>
#include <ocellus/image/jpeg_idct.hpp>
#include <ocellus/image/jpeg_samples.hpp>
#include <ocellus/isa/target.hpp>

#include <algorithm>
#include <cstring>

OCELLUS_BEGIN

namespace detail {

class jpeg_decoder {
 public:
  jpeg_decoder(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept
      : in_(file), options_(options), sink_(sink) {}

  status decode() noexcept {
    const status read = read_file();
    if (read != status::ok) return read;
    for (int y = 0; y < mcus_h_ && progressive_; y++) {
      for (int i = 0; i < components_; i++) finish_row(component_[i], y);
      write_rows(complete_rows(y, mcus_h_, 8 * v_max_));
    }
    if (!progressive_ && !one_scan_) write_rows(height_);
    return status::ok;
  }

 private:
  struct scan {
    int n = 0;
    jpeg_component* components[4] = {};
    int start = 0;  // spectral selection
    int end = 63;
    int high = 0;  // successive approximation
    int low = 0;
  };

  /// The next marker, or -1 at the end of the file. Skips what lies between.
  int next_marker() noexcept {
    while (in_.left() >= 2) {
      if (in_.data[in_.at] != 0xff) {
        in_.at++;
        continue;
      }
      const int m = in_.data[in_.at + 1];
      if (m == 0xff) {
        in_.at++;
      } else {
        in_.at += 2;
        if (m != 0) return m;
      }
    }
    return -1;
  }

  status read_file() noexcept {
    if (in_.u8() != 0xff || in_.u8() != 0xd8) return status::bad_image;
    for (;;) {
      const int m = next_marker();
      if (m == 0xd9 || m == -1) {  // end of image
        if (!any_scan_) return m == -1 ? status::truncated : status::bad_image;
        const bool complete = m == 0xd9 || (!progressive_ && all_seen());
        return complete ? status::ok : status::truncated;
      }
      if ((m >= 0xd0 && m <= 0xd8) || m == 0x01) continue;  // no segment follows
      const std::size_t segment = in_.at;
      const int length = in_.u16be();
      if (m == 0xda) {
        const status s = read_scan(length);
        if (s != status::ok) return s;
        continue;
      }
      const std::size_t next = segment + static_cast<std::size_t>(length < 2 ? 2 : length);
      if (next > in_.size) return status::truncated;
      const status s = read_segment(m, next);
      if (s != status::ok) return s;
      in_.seek(next);
    }
  }

  [[gnu::cold]] status read_segment(int m, std::size_t next) noexcept {
    if (m == 0xdb) return read_quantisation(next);
    if (m == 0xc4) return read_huffman(next);
    if (m == 0xdd) {
      restart_interval_ = in_.u16be();
      return status::ok;
    }
    if (m == 0xc0 || m == 0xc1 || m == 0xc2) return read_frame(m == 0xc2);
    if (m >= 0xc3 && m <= 0xcf && m != 0xc8 && m != 0xcc) return status::unsupported_image;
    const std::size_t n = next - in_.at;
    if (m == 0xe0 && n >= 14 && std::memcmp(in_.data + in_.at, "JFIF", 5) == 0) jfif_ = true;
    if (m == 0xee && n >= 12 && std::memcmp(in_.data + in_.at, "Adobe", 5) == 0)
      adobe_ = in_.data[in_.at + 11];
    return status::ok;
  }

  status read_quantisation(std::size_t next) noexcept {
    while (in_.at < next) {
      const int q = in_.u8();
      if ((q & 15) > 3 || q >> 4 > 1) return status::bad_image;
      if (next - in_.at < (q >> 4 != 0 ? 128u : 64u)) return status::bad_image;
      for (int k = 0; k < 64; k++) {
        quant_[q & 15][jpeg_zigzag[k]] = static_cast<std::uint16_t>(q >> 4 != 0 ? in_.u16be() : in_.u8());
      }
      quant_defined_[q & 15] = true;
    }
    return status::ok;
  }

  status read_huffman(std::size_t next) noexcept {
    while (in_.at < next) {
      if (next - in_.at < 17) return status::bad_image;
      const int which = in_.u8();
      if ((which & 15) > 3 || which >> 4 > 1) return status::bad_image;
      std::uint8_t lengths[16];
      std::size_t total = 0;
      for (std::uint8_t& n : lengths) {
        n = static_cast<std::uint8_t>(in_.u8());
        total += n;
      }
      if (total > 256 || total > next - in_.at) return status::bad_image;
      jpeg_huffman& h = which >> 4 != 0 ? ac_[which & 15] : dc_[which & 15];
      for (std::size_t i = 0; i < total; i++) h.symbols[i] = static_cast<std::uint8_t>(in_.u8());
      if (!h.build(lengths)) return status::bad_image;
    }
    return status::ok;
  }

  status read_frame(bool progressive) noexcept {
    if (components_ != 0) return status::bad_image;  // a second frame
    progressive_ = progressive;
    const int precision = in_.u8();
    height_ = in_.u16be();
    width_ = in_.u16be();
    const int n = in_.u8();
    if (width_ == 0 || height_ == 0 || n == 0) return status::bad_image;
    if (precision != 8 || n == 2 || n > 4) return status::unsupported_image;
    for (int i = 0; i < n; i++) {
      jpeg_component& c = component_[i];
      c.id = in_.u8();
      const int factors = in_.u8();
      c.h = factors >> 4;
      c.v = factors & 15;
      c.table = in_.u8();
      if (c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 || c.table > 3) return status::bad_image;
      h_max_ = std::max(h_max_, c.h);
      v_max_ = std::max(v_max_, c.v);
    }
    if (in_.overrun) return status::truncated;
    components_ = n;
    return measure();
  }

  status measure() noexcept {
    std::int64_t per_pixel = 3;
    for (int i = 0; i < components_; i++) {
      const jpeg_component& c = component_[i];
      if (h_max_ % c.h != 0 || v_max_ % c.v != 0) return status::unsupported_image;
      per_pixel += progressive_ ? 2 : 1;  // an upper bound: subsampled components need less
    }
    const status size = check_size(width_, height_, per_pixel, options_);
    if (size != status::ok) return size;
    mcus_w_ = (width_ + 8 * h_max_ - 1) / (8 * h_max_);
    mcus_h_ = (height_ + 8 * v_max_ - 1) / (8 * v_max_);
    // Each block takes at least a bit of each scan that it is part of (or shares 32767 in an end-of-band
    // run): refuse what cannot be there before allocating for it.
    if (std::int64_t{mcus_w_} * mcus_h_ / 8 / 64 > static_cast<std::int64_t>(in_.left()))
      return status::truncated;
    for (int i = 0; i < components_; i++) {
      jpeg_component& c = component_[i];
      c.width = (width_ * c.h + h_max_ - 1) / h_max_;
      c.height = (height_ * c.v + v_max_ - 1) / v_max_;
      c.blocks_w = mcus_w_ * c.h;
      c.blocks_h = mcus_h_ * c.v;
      work_left_ += std::int64_t{c.blocks_w} * c.blocks_h;
    }
    // Scripts of real encoders visit a block at most some ten times, two or three of these refine, which makes
    // less than 50 (see `work_per_row`); hundreds of scans are an attack.
    work_left_ = std::max(work_left_ * 100, std::int64_t{20'000'000});
    return status::ok;
  }

  [[gnu::cold]] status allocate_planes(const scan& first) noexcept {
    one_scan_ = !progressive_ && first.n == components_;
    for (int i = 0; i < components_; i++) {
      jpeg_component& c = component_[i];
      // A row of MCUs and the one before, where pixels leave as rows are complete.
      c.plane_rows = one_scan_ || progressive_ ? std::min(c.blocks_h, 2 * c.v) : c.blocks_h;
      const std::int64_t samples = std::int64_t{c.blocks_w} * c.plane_rows * 64;
      c.plane.reset(new (std::nothrow) std::uint8_t[static_cast<std::size_t>(samples)]);
      if (progressive_) c.coefficients = allocate<std::int16_t>(std::int64_t{c.blocks_w} * c.blocks_h * 64);
      if (!c.plane || (progressive_ && !c.coefficients)) return status::out_of_memory;
      if (!progressive_) std::memset(c.plane.get(), 128, static_cast<std::size_t>(samples));
    }
    const status opened = sink_.open(width_, height_);
    if (opened != status::ok) return opened;
    for (int i = 0; i < components_; i++) {
      const status s = up_[i].open(component_[i], h_max_, v_max_, width_, sink_);
      if (s != status::ok) return s;
    }
    return status::ok;
  }

  bool all_seen() const noexcept {
    for (int i = 0; i < components_; i++) {
      if (!component_[i].seen) return false;
    }
    return true;
  }

  status read_scan(int length) noexcept {
    if (one_scan_) return status::bad_image;  // libjpeg expects the end of the image
    scan s;
    s.n = in_.u8();
    if (components_ == 0 || s.n < 1 || s.n > components_ || length != 6 + 2 * s.n) return status::bad_image;
    for (int i = 0; i < s.n; i++) {
      const int id = in_.u8(), tables = in_.u8();
      for (int k = 0; k < components_; k++) {
        // Components of the same name go by their order, as libjpeg-turbo tells them apart.
        if (component_[k].id != id || s.components[k] != nullptr) continue;
        s.components[i] = &component_[k];
        break;
      }
      jpeg_component* c = s.components[i];
      if (c == nullptr || std::count(s.components, s.components + i, c) != 0) return status::bad_image;
      c->dc = tables >> 4;
      c->ac = tables & 15;
      if (c->dc > 3 || c->ac > 3) return status::bad_image;
    }
    s.start = in_.u8();
    s.end = in_.u8();
    const int approximation = in_.u8();
    if (in_.overrun) return status::truncated;
    if (progressive_) {
      s.high = approximation >> 4;
      s.low = approximation & 15;
      if (s.start > s.end || s.end > 63 || s.low > 13 || s.high > 13 || (s.start == 0) != (s.end == 0) ||
          (s.start > 0 && s.n != 1)) {
        return status::bad_image;
      }
    } else {
      s.start = 0;
      s.end = 63;
    }
    if (!any_scan_ && !progressive_) add_standard_tables();
    for (int i = 0; i < s.n; i++) {
      const status latched = prepare(*s.components[i], s);
      if (latched != status::ok) return latched;
    }
    if (!any_scan_) {
      space_ = color();  // as libjpeg: what comes between scans does not change it
      const status allocated = allocate_planes(s);
      if (allocated != status::ok) return allocated;
    }
    any_scan_ = true;
    return decode_scan(s);
  }

  /// The tables that the scan needs must be there; quantisation is fixed by a component's first scan.
  status prepare(jpeg_component& c, const scan& s) noexcept {
    const bool needs_dc = s.start == 0 && s.high == 0, needs_ac = s.end > 0;
    if ((needs_dc && !dc_[c.dc].defined) || (needs_ac && !ac_[c.ac].defined)) return status::bad_image;
    if (c.seen) return status::ok;
    if (!quant_defined_[c.table]) return status::bad_image;
    std::memcpy(c.quant, quant_[c.table], sizeof c.quant);
    c.seen = true;
    return status::ok;
  }

  /// Motion JPEG: tables 0 and 1 that a file does not bring are the standard's.
  void add_standard_tables() noexcept {
    for (int i = 0; i < 2; i++) {
      if (!dc_[i].defined) {
        for (int k = 0; k < 12; k++) dc_[i].symbols[k] = static_cast<std::uint8_t>(k);
        dc_[i].build(jpeg_standard_dc_lengths[i]);
      }
      if (!ac_[i].defined) {
        std::memcpy(ac_[i].symbols, jpeg_standard_ac_symbols[i], sizeof jpeg_standard_ac_symbols[i]);
        ac_[i].build(jpeg_standard_ac_lengths[i]);
      }
    }
  }

  status decode_scan(const scan& s) noexcept {
    bits_ = jpeg_bits{};
    bits_.p = in_.data + in_.at;
    bits_.end = in_.data + in_.size;
    restart();
    next_restart_ = 0;
    out_of_data_ = false;
    // A scan of one component has no padding blocks and one block per MCU.
    const jpeg_component& only = *s.components[0];
    const int columns = s.n == 1 ? (only.width + 7) / 8 : mcus_w_;
    const int rows = s.n == 1 ? (only.height + 7) / 8 : mcus_h_;
    // Counted in visits of blocks; refining reads coefficients even where it takes no bits, some eight in the
    // time of a visit.
    std::int64_t work_per_row = columns;
    if (s.n > 1) {
      work_per_row = 0;
      for (int i = 0; i < s.n; i++) work_per_row += s.components[i]->blocks_w * s.components[i]->v;
    }
    if (s.start > 0 && s.high > 0) work_per_row += work_per_row * (s.end - s.start + 1) / 8;
    int to_restart = restart_interval_;
    for (int y = 0; y < rows; y++) {
      if (one_scan_ && y > 1) clear_row(s, y);
      for (int x = 0; x < columns;) {
        int end = columns;
        if (restart_interval_ > 0) {
          if (to_restart == 0) {
            next_restart();
            to_restart = restart_interval_;
          }
          end = std::min(columns, x + to_restart);
          to_restart -= end - x;
        }
        if (!out_of_data_) decode_mcus(s, x, end, y);
        x = end;
      }
      if (bits_.truncated()) return status::truncated;
      work_left_ -= work_per_row;
      if (work_left_ < 0) return status::bad_image;
      if (one_scan_) write_rows(complete_rows(y, rows, 8 * (s.n == 1 ? 1 : v_max_)));
    }
    in_.at = static_cast<std::size_t>(bits_.p - in_.data);
    // The bit buffer may have read ahead over bytes, but never over a marker.
    return status::ok;
  }

  /// Grey where the row of MCUs before the last one lay.
  static void clear_row(const scan& s, int y) noexcept {
    for (int i = 0; i < s.n; i++) {
      const jpeg_component& c = *s.components[i];
      const int down = s.n == 1 ? 1 : c.v;
      std::memset(c.row(y * down * 8), 128, static_cast<std::size_t>(c.stride() * down * 8));
    }
  }

  void restart() noexcept {
    bits_.reset();
    end_of_band_run_ = 0;
    for (jpeg_component& c : component_) c.predictor = 0;
  }

  void skip_to_marker() noexcept {
    while (!bits_.at_marker && !bits_.at_end) bits_.next_byte();
  }

  /// Continues after the restart marker that is due. Where intervals were lost or come twice, the numbers (of
  /// three bits) tell: one or two ahead waits for its turn, so does any other marker; one or two behind is
  /// skipped with its interval; further off is taken for the one that is due. Until then there is no data.
  void next_restart() noexcept {
    const bool was_out = out_of_data_ || bits_.starved();
    skip_to_marker();
    restart();
    while (bits_.at_marker) {
      const int m = bits_.p[1], ahead = (m - 0xd0 - next_restart_) & 7;
      const bool numbered = m >= 0xd0 && m <= 0xd7;
      if (m >= 0xc0 && (!numbered || ahead == 1 || ahead == 2)) break;
      bits_.p += 2;
      bits_.at_marker = false;
      if (numbered && ahead < 6) break;
      skip_to_marker();
    }
    // An interval whose marker is missing while there was data takes one MCU from zero bits, as libjpeg has it.
    out_of_data_ = was_out && bits_.at_marker;
    next_restart_ = (next_restart_ + 1) & 7;
  }

  /// MCUs [begin, end) of a row, between restarts. Out of data, samples stay grey and coefficients as earlier scans
  /// left them.
  void decode_mcus(const scan& s, int begin, int end, int y) noexcept {
    if (!progressive_) {
      for_each_block(s, begin, end, y, [this](jpeg_bits& bits, jpeg_component& c, int bx, int by) OCELLUS_LAMBDA {
        std::int16_t block[64] = {};
        const bool flat = baseline_block(bits, c, block);
        transform(c, block, flat, bx, by);
      });
      return;
    }
    for_each_block(s, begin, end, y, [&](jpeg_bits& bits, jpeg_component& c, int bx, int by) OCELLUS_LAMBDA {
      std::int16_t* block = c.coefficients.get() + (std::ptrdiff_t{by} * c.blocks_w + bx) * 64;
      if (s.start == 0) {
        if (s.high == 0) {
          block[0] = static_cast<std::int16_t>(static_cast<std::uint32_t>(next_dc(bits, c)) << s.low);
        } else {
          block[0] = static_cast<std::int16_t>(block[0] | bits.bit() << s.low);
        }
      } else if (s.high == 0) {
        first_ac(bits, s, ac_[c.ac], block);
      } else {
        refine_ac(bits, s, ac_[c.ac], block);
      }
    });
  }

  template <class F>
  OCELLUS_INLINE void for_each_block(const scan& s, int begin, int end, int y, const F& f) noexcept {
    jpeg_bits bits = bits_;  // a copy lives in registers
    for (int x = begin; x < end && !bits.starved(); x++) {
      for (int i = 0; i < s.n; i++) {
        jpeg_component& c = *s.components[i];
        const int across = s.n == 1 ? 1 : c.h, down = s.n == 1 ? 1 : c.v;
        for (int v = 0; v < down; v++) {
          for (int h = 0; h < across; h++) f(bits, c, x * across + h, y * down + v);
        }
      }
    }
    bits_ = bits;
  }

  OCELLUS_INLINE int next_dc(jpeg_bits& bits, jpeg_component& c) noexcept {
    bits.need32();
    const int n = bits.symbol(dc_[c.dc]);
    // Wraps like 16 bits: a damaged file may add up differences without end.
    if (n > 0 && n <= 15) c.predictor = static_cast<std::int16_t>(c.predictor + jpeg_bits::extended(bits.take(n), n));
    return c.predictor;
  }

  /// True if only the mean is there.
  OCELLUS_INLINE bool baseline_block(jpeg_bits& bits, jpeg_component& c, std::int16_t (&block)[64]) noexcept {
    block[0] = static_cast<std::int16_t>(next_dc(bits, c));
    const jpeg_huffman& h = ac_[c.ac];
    bool flat = true;
    for (int k = 1; k < 64; k++) {
      bits.need32();
      const std::uint32_t code = bits.next_code(h);
      const int run = static_cast<int>(code >> 12 & 15), n = static_cast<int>(code >> 8 & 15);
      const int value = jpeg_bits::top(bits.buffer << (code & 0xff), n);
      bits.drop(static_cast<int>(code >> 16));  // with the value
      if (n == 0) {
        if (run != 15) break;
        k += 15;
        continue;
      }
      k += run;
      block[jpeg_zigzag[k]] = static_cast<std::int16_t>(jpeg_bits::extended(value, n));
      flat = false;
    }
    return flat;
  }

  /// T.81 G.1.2.2.
  OCELLUS_INLINE void first_ac(jpeg_bits& bits, const scan& s, const jpeg_huffman& h, std::int16_t* block) noexcept {
    if (end_of_band_run_ > 0) {
      end_of_band_run_--;
      return;
    }
    for (int k = s.start; k <= s.end; k++) {
      bits.need32();
      const int symbol = bits.symbol(h), run = symbol >> 4, n = symbol & 15;
      if (n == 0) {
        if (run != 15) {
          end_of_band_run_ = (1 << run) - 1 + bits.take(run);
          break;
        }
        k += 15;
        continue;
      }
      k += run;
      const int v = jpeg_bits::extended(bits.take(n), n);
      block[std::min(k, 63)] = static_cast<std::int16_t>(static_cast<std::uint32_t>(v) << s.low);
    }
  }

  /// One more bit for a coefficient that is not zero. Without branches, which half of the bits would miss.
  static OCELLUS_INLINE void refine(jpeg_bits& bits, std::int16_t& c, int bit) noexcept {
    const int wanted = -bits.bit() & ~c & bit, sign = c >> 15;
    c = static_cast<std::int16_t>(c + ((wanted ^ sign) - sign));
  }

  /// T.81 G.1.2.3.
  OCELLUS_INLINE void refine_ac(jpeg_bits& bits, const scan& s, const jpeg_huffman& h, std::int16_t* block) noexcept {
    const int bit = 1 << s.low;
    const std::uint64_t known = jpeg_known(block) & (~std::uint64_t{0} >> (63 - s.end));
    int k = s.start;
    if (end_of_band_run_ == 0) {
      for (; k <= s.end; k++) {
        bits.need32();
        const int symbol = bits.symbol(h), n = symbol & 15;
        int run = symbol >> 4, fresh = 0;
        if (n != 0) {
          fresh = bits.take(1) != 0 ? bit : -bit;
        } else if (run != 15) {
          end_of_band_run_ = (1 << run) + bits.take(run);
          break;
        }
        for (; k <= s.end; k++) {  // passes `run` zeros, refining what lies between
          const int zeros = std::min(std::countr_zero(known >> k), s.end + 1 - k);
          k += std::min(zeros, run);
          if (zeros > run || k > s.end) break;
          run -= zeros;
          refine(bits, block[k], bit);
        }
        if (fresh != 0) block[std::min(k, 63)] = static_cast<std::int16_t>(fresh);
      }
    }
    if (end_of_band_run_ > 0) {
      for (std::uint64_t rest = k <= s.end ? known >> k << k : 0; rest != 0; rest &= rest - 1)
        refine(bits, block[std::countr_zero(rest)], bit);
      end_of_band_run_--;
    }
  }

  /// `flat`: only the mean is not zero.
  static void transform(jpeg_component& c, const std::int16_t* block, bool flat, int x, int y) noexcept {
    if (x < c.left || x >= c.right || y < c.top || y >= c.bottom) return;
    std::uint8_t* out = c.row(y * 8) + x * 8;
    if (flat) {
      jpeg_idct::flat(block[0], c.quant[0], out, c.stride());
    } else {
      jpeg_idct::block(block, c.quant, out, c.stride());
    }
  }

  /// Progressive: a component's blocks of a row of MCUs to samples.
  static void finish_row(jpeg_component& c, int mcus) noexcept {
    for (int y = mcus * c.v; y < (mcus + 1) * c.v; y++) {
      for (int x = c.left; x < c.right; x++) {
        const std::int16_t* stored = c.coefficients.get() + (std::ptrdiff_t{y} * c.blocks_w + x) * 64;
        const std::uint64_t known = jpeg_known(stored);
        std::int16_t block[64] = {};
        for (std::uint64_t rest = known; rest != 0; rest &= rest - 1)
          block[jpeg_zigzag[std::countr_zero(rest)]] = stored[std::countr_zero(rest)];
        transform(c, block, known <= 1, x, y);
      }
    }
  }

  /// jdapimin.c, default_decompress_parms: what the numbers mean.
  jpeg_color color() const noexcept {
    if (components_ == 1) return jpeg_color::grey;
    if (components_ == 4) return adobe_ > 0 ? jpeg_color::ycck : jpeg_color::cmyk;
    if (jfif_) return jpeg_color::ycc;
    if (adobe_ >= 0) return adobe_ == 0 ? jpeg_color::rgb : jpeg_color::ycc;
    const bool named = component_[0].id == 'R' && component_[1].id == 'G' && component_[2].id == 'B';
    return named ? jpeg_color::rgb : jpeg_color::ycc;
  }

  /// Rows of pixels that can be made of rows of MCUs up to y: the last one of these can need samples of the next.
  int complete_rows(int y, int rows, int mcu_height) const noexcept {
    return y + 1 < rows ? (y + 1) * mcu_height - 1 : height_;
  }

  /// Rows of pixels up to `end` that are needed, from samples.
  void write_rows(int end) noexcept {
    const int left = sink_.left, n = sink_.right - left;
    for (next_row_ = std::max(next_row_, sink_.top); next_row_ < std::min(end, sink_.bottom); next_row_++) {
      const std::uint8_t* in[4] = {};
      for (int i = 0; i < components_; i++) in[i] = up_[i].row(next_row_) + left;
      std::uint8_t* out = sink_.row(next_row_) + std::ptrdiff_t{3} * left;
      if (space_ == jpeg_color::ycc) {
        jpeg_ycc_row(in[0], in[1], in[2], n, out);
      } else if (space_ == jpeg_color::cmyk || space_ == jpeg_color::ycck) {
        jpeg_cmyk_row(in, space_ == jpeg_color::ycck, n, out);
      } else {
        const bool grey = space_ == jpeg_color::grey;
        for (int x = 0; x < n; x++, out += 3) {
          put(out, {in[0][x], in[grey ? 0 : 1][x], in[grey ? 0 : 2][x]});
        }
      }
    }
  }

  bytes in_;
  load_options options_;
  jpeg_bits bits_;
  jpeg_huffman dc_[4], ac_[4];
  std::uint16_t quant_[4][64] = {};
  bool quant_defined_[4] = {};
  jpeg_component component_[4];
  int components_ = 0;
  int width_ = 0, height_ = 0;
  int h_max_ = 1, v_max_ = 1;
  int mcus_w_ = 0, mcus_h_ = 0;
  int restart_interval_ = 0;
  int end_of_band_run_ = 0;
  int next_restart_ = 0;        // number of the restart marker that is due, 0 to 7
  bool out_of_data_ = false;    // since before the last restart
  std::int64_t work_left_ = 0;  // visits of blocks that scans may still make
  jpeg_upsampler up_[4];
  row_sink& sink_;
  int next_row_ = 0;  // that is not written yet
  bool one_scan_ = false;  // baseline, with all components in the first scan: rows of pixels leave as they come
  bool progressive_ = false;
  bool any_scan_ = false;
  jpeg_color space_ = jpeg_color::ycc;
  bool jfif_ = false;
  int adobe_ = -1;  // Adobe's colour transform, -1: no such marker
};

inline status jpeg_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  jpeg_decoder decoder(file, options, sink);
  return decoder.decode();
}

}  // namespace detail

/// Errors: bad_image, unsupported_image, truncated, image_too_large, out_of_memory. Uses 30 KB of stack.
inline result<image> decode_jpeg(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::jpeg_rows, file, options);
}

OCELLUS_END
