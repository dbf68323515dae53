// Picture files to RGB: JPEG, PNG, BMP, GIF, TGA, PBM, PGM, PPM. Opt-in: the core takes pixels and needs none
// of this.
//
//   auto photo = ocellus::load_image("cat.jpg");                       // result<image>
//   if (!photo) std::puts(ocellus::to_string(photo.error()));
//   ocellus::preprocess_config clip;                                    // defaults: CLIP at 224
//   auto small = ocellus::preprocess_file("cat.jpg", clip, kernels);    // resized and cropped, in little memory
//
// Pixels are those of Pillow's Image.open(...).convert("RGB"): alpha is dropped, not blended; palettes are
// looked up; grey is repeated; 16 bits keep the high byte (also grey, which Pillow would clip); CMYK is
// converted without a profile; ICC profiles and gamma are ignored; of an animation, the first frame; EXIF
// orientation is ignored unless asked for. Not supported: WebP, HEIC, AVIF, TIFF, JPEG 2000, JPEG XL, PSD, QOI, DDS,
// icons: decode them yourself and pass pixels.
//
// Files are untrusted: sizes are checked before memory is asked for, reads stay inside the file, work is
// bounded. Damaged files give a status; where libjpeg continues with damaged data, so does this. Where it
// differs from Pillow:
//   - GIF frames that do not cover the canvas lie on the file's background colour;
//   - PNG and GIF checksums and data after the picture are not looked at;
//   - progressive JPEG that never brings all bits of its coefficients is not smoothed across blocks;
//   - BMP bit fields of any layout are taken; pixels that RLE data leaves out have colour 0.
#pragma once

#include <ocellus/image/bmp.hpp>
#include <ocellus/image/decode.hpp>
#include <ocellus/image/exif.hpp>
#include <ocellus/image/gif.hpp>
#include <ocellus/image/jpeg.hpp>
#include <ocellus/image/png.hpp>
#include <ocellus/image/pnm.hpp>
#include <ocellus/image/preprocess.hpp>
#include <ocellus/image/tga.hpp>

#include <cerrno>
#include <cstdio>

OCELLUS_BEGIN

namespace detail {

inline status decode_by_signature(std::span<const std::uint8_t> file, const load_options& options,
                                  row_sink& sink) noexcept {
  const auto starts = [&](const char* signature, std::size_t n) {
    return file.size() >= n && std::memcmp(file.data(), signature, n) == 0;
  };
  if (file.empty()) return status::empty_file;
  if (starts("\xff\xd8", 2)) return jpeg_rows(file, options, sink);
  if (starts("\x89PNG\r\n\x1a\n", 8)) return png_rows(file, options, sink);
  if (starts("BM", 2)) return bmp_rows(file, options, sink);
  if (starts("GIF87a", 6) || starts("GIF89a", 6)) return gif_rows(file, options, sink);
  if (file.size() >= 2 && file[0] == 'P' && file[1] >= '1' && file[1] <= '6')
    return pnm_rows(file, options, sink);
  if (starts("RIFF", 4) || starts("II*\0", 4) || starts("MM\0*", 4) || starts("II+\0", 4) ||
      starts("MM\0+", 4))
    return status::unsupported_image;  // WebP, TIFF, BigTIFF
  if (file.size() >= 12 && std::memcmp(file.data() + 4, "ftyp", 4) == 0)
    return status::unsupported_image;  // HEIC, AVIF
  if (starts("\0\0\0\x0cjP  \r\n\x87\n", 12) || starts("\xff\x4f\xff\x51", 4) ||
      starts("\0\0\0\x0cJXL \r\n\x87\n", 12) || starts("\xff\x0a", 2))
    return status::unsupported_image;  // JPEG 2000, JPEG XL, each as a container and as a bare codestream
  if (starts("8BPS", 4) || starts("qoif", 4) || starts("DDS ", 4)) return status::unsupported_image;
  if (looks_like_tga(file)) return tga_rows(file, options, sink);
  // Windows icons: after TGA, for four bytes of mostly zeros are not much of a signature.
  if (starts("\0\0\x01\0", 4)) return status::unsupported_image;
  return status::bad_image;
}

/// Resizes and crops a picture while its rows come. Bands of them take the horizontal pass, and what that gives the
/// vertical one at the end. The vertical pass comes first, on a window of rows, where the order of the passes or the
/// orientation wants it: rows of a picture that lies on its side are columns of the upright one. Only the result is
/// turned.
class preprocess_sink final : public row_sink {
 public:
  preprocess_sink(const preprocess_config& config, const resample_kernels& kernels, int orientation) noexcept
      : config_(config), kernels_(kernels), orientation_(orientation) {}

  status open(int width, int height) noexcept override {
    if (std::int64_t{3} * width * height > INT32_MAX) return status::image_too_large;  // as a whole picture would be
    stride_ = std::ptrdiff_t{3} * width;
    failed_ = plan(width, height);
    // What cannot be done with the picture is said at the end: an error of the file counts more.
    if (failed_ != status::ok) left = right = top = bottom = 0;
    if (whole_) return status::ok;
    band_ = allocate<std::uint8_t>(most_rows_ * stride_);
    return band_ ? status::ok : status::out_of_memory;
  }

  std::uint8_t* row(int y) noexcept override {
    if (whole_) return picture_.row(y);
    if (rows_ == most_rows_) flush();
    std::uint8_t* const at = band_.get() + rows_ * stride_;
    if (y >= top && y < bottom) rows_++;
    return at;
  }

  /// After the last row.
  result<image> finish() noexcept {
    if (failed_ != status::ok) return failed_;
    if (whole_) {
      if (orientation_ == 1) return preprocess(picture_, config_, kernels_);
      const result<image> upright = orient(picture_, orientation_);
      return upright ? preprocess(*upright, config_, kernels_) : upright.error();
    }
    flush();
    result<image> made = image::make(across_.view().outputs, down_.view().outputs);
    if (!made) return made;
    if (vertical_first_) {
      kernels_.horizontal({&across_.view(), between_.get(), between_stride_, right - left, made->height(),
                           made->pixels(), made->stride()});
    } else {
      kernels_.vertical({&down_.view(), between_.get(), between_stride_, static_cast<int>(between_stride_), 0,
                         made->height(), made->pixels(), made->stride()});
    }
    if (orientation_ == 1) return made;
    return orient(*made, orientation_);
  }

 private:
  status plan(int width, int height) noexcept {
    const bool turned = orientation_ >= 5;
    const int w = turned ? height : width, h = turned ? width : height;
    const result<preprocess_shape> shape = preprocess_shape_of(config_, w, h);
    if (!shape) return shape.error();
    const resize_window& r = shape->window;
    if (r.resized_w == w && r.resized_h == h) {  // a part of the picture as it is
      result<image> made = image::make(width, height);
      if (!made) return made.error();
      picture_ = std::move(*made);
      whole_ = true;
      right = width;
      bottom = height;
      return status::ok;
    }
    const fp_env guard;
    const status s = across_.build(config_.filter, width, turned ? r.resized_h : r.resized_w, turned ? r.y : r.x,
                                   turned ? r.h : r.w, turned_from_right(orientation_));
    if (s != status::ok) return s;
    const status t = down_.build(config_.filter, height, turned ? r.resized_w : r.resized_h, turned ? r.x : r.y,
                                 turned ? r.w : r.h, turned_from_bottom(orientation_));
    if (t != status::ok) return t;
    // A side that keeps its size passes as it is, whenever: last, so that what lies between is small.
    const bool same_across = width == (turned ? r.resized_h : r.resized_w);
    const bool same_down = height == (turned ? r.resized_w : r.resized_h);
    vertical_first_ = same_across || (!same_down && vertical_pass_first(r, w, h, config_.order) != turned);
    left = across_.source_begin(), right = across_.source_end();
    top = down_.source_begin(), bottom = down_.source_end();
    if (vertical_first_) across_.shift(left);
    down_.shift(top);
    between_stride_ = std::ptrdiff_t{3} * (vertical_first_ ? right - left : across_.view().outputs);
    const std::int64_t bytes = between_stride_ * (vertical_first_ ? down_.view().outputs : bottom - top);
    if (bytes > resize_scratch_limit) return status::image_too_large;
    between_ = scratch<std::uint8_t>(bytes);
    if (!between_) return status::out_of_memory;
    // A window holds the rows of one output at least, and some before they are moved up.
    most_rows_ = std::min(bottom - top, vertical_first_ ? 2 * down_.view().taps : 16);
    return status::ok;
  }

  /// The first pass of the rows in the band, as far as they go.
  void flush() noexcept {
    if (!vertical_first_) {
      kernels_.horizontal({&across_.view(), band_.get(), stride_, static_cast<int>(stride_ / 3), rows_,
                           between_.get() + done_ * between_stride_, between_stride_});
      done_ += rows_;
      rows_ = 0;
      return;
    }
    const resample_taps& t = down_.view();
    const int begin = done_;
    while (done_ < t.outputs && t.first[done_] + t.count[done_] <= rows_) done_++;
    kernels_.vertical({&t, band_.get() + std::ptrdiff_t{3} * left, stride_, static_cast<int>(between_stride_), begin,
                       done_, between_.get(), between_stride_});
    const int over = done_ < t.outputs ? std::min(t.first[done_], rows_) : rows_;
    rows_ -= over;
    std::memmove(band_.get(), band_.get() + over * stride_, static_cast<std::size_t>(rows_ * stride_));
    down_.shift(over);
  }

  const preprocess_config& config_;
  const resample_kernels kernels_;
  const int orientation_;
  status failed_ = status::ok;
  bool whole_ = false;  // it is not resized: picture_ is made first
  image picture_;
  bool vertical_first_ = false;
  axis_taps across_, down_;               // of the picture as it is stored
  std::unique_ptr<std::uint8_t[]> band_;  // [most_rows_, width, 3], rows_ of them are there
  std::ptrdiff_t stride_ = 0;
  int rows_ = 0, most_rows_ = 1;
  std::unique_ptr<std::uint8_t[]> between_;  // what the first pass makes, done_ rows of it
  std::ptrdiff_t between_stride_ = 0;
  int done_ = 0;
};

struct file_bytes {
  std::unique_ptr<std::uint8_t[]> data;
  std::size_t size = 0;
  std::span<const std::uint8_t> bytes() const noexcept { return {data.get(), size}; }
};

inline result<file_bytes> read_picture(const char* path, const load_options& options) noexcept {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"),
                                                             [](std::FILE* f) { return std::fclose(f); });
  if (!file) return errno == ENOENT ? status::file_not_found : status::cannot_read;
  if (std::fgetc(file.get()) == EOF)
    return std::ferror(file.get()) != 0 ? status::cannot_read : status::empty_file;
  if (std::fseek(file.get(), 0, SEEK_END) != 0) return status::not_a_regular_file;
  const long size = std::ftell(file.get());
  if (size <= 0 || std::fseek(file.get(), 0, SEEK_SET) != 0) return status::not_a_regular_file;
  if (size > options.max_bytes) return status::too_large;
  file_bytes read;
  read.size = static_cast<std::size_t>(size);
  read.data.reset(new (std::nothrow) std::uint8_t[read.size]);
  if (!read.data) return status::out_of_memory;
  if (std::fread(read.data.get(), 1, read.size, file.get()) != read.size) return status::cannot_read;
  return read;
}

}  // namespace detail

/// Decodes a whole file in memory.
/// Errors: empty_file, bad_image, unsupported_image, truncated, image_too_large, out_of_memory.
inline result<image> decode_image(std::span<const std::uint8_t> file,
                                  const load_options& options = {}) noexcept {
  result<image> made = detail::to_image(&detail::decode_by_signature, file, options);
  if (!made || !options.exif_orientation) return made;
  const int orientation = exif_orientation(file);
  if (orientation == 1) return made;
  return orient(*made, orientation);
}

/// Reads and decodes a file.
/// Errors: file_not_found, cannot_read, too_large (more than options.max_bytes), and those of decode_image.
inline result<image> load_image(const char* path, const load_options& options = {}) noexcept {
  const result<detail::file_bytes> file = detail::read_picture(path, options);
  return file ? decode_image(file->bytes(), options) : file.error();
}

/// Decodes a file in memory, resizes and crops it as `c` says: u8 RGB. The result is that of preprocess(*decode_image(
/// file, options), c, kernels), byte for byte, and so is an error. The difference is the memory, and less work: RGB in
/// full size exists only where the size does not change. A baseline JPEG takes some rows of pixels (all samples where
/// components come in scans of their own), a progressive one its coefficients: 3 bytes a pixel if chroma is halved both
/// ways, 6 if not at all; PNG takes its inflated rows. `options` allow and refuse what they do in decode_image.
/// For NaFlex, the sides of the result over c.patch are its grid. On one thread.
/// Errors: those of decode_image and preprocess.
inline result<image> preprocess_file(std::span<const std::uint8_t> file, const preprocess_config& c,
                                     const resample_kernels& kernels, const load_options& options = {}) noexcept {
  detail::preprocess_sink sink(c, kernels, options.exif_orientation ? exif_orientation(file) : 1);
  const status s = detail::decode_by_signature(file, options, sink);
  if (s != status::ok) return s;
  return sink.finish();
}

/// The same of a file by its path. Errors: those of load_image and preprocess.
inline result<image> preprocess_file(const char* path, const preprocess_config& c, const resample_kernels& kernels,
                                     const load_options& options = {}) noexcept {
  const result<detail::file_bytes> file = detail::read_picture(path, options);
  return file ? preprocess_file(file->bytes(), c, kernels, options) : file.error();
}

OCELLUS_END
