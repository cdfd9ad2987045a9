package ciphertextscan

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

const (
	// maxRelease bounds the size of a decompressed Helm release. It bounds time and not memory, because a
	// release is decompressed in parts.
	maxRelease = 16 << 20
	// A part of a release is at most maxPart long. A longer one is cut, and the parts overlap by at most a
	// line, so that no shorter text is cut in both. No Secret has a manifest that is longer.
	maxPart = 2 << 20
	overlap = maxPart / 2
)

// helmRelease is the type of the Secrets in which Helm stores releases.
const helmRelease corev1.SecretType = "helm.sh/release.v1"

var errDamaged = errors.New("the Helm release is damaged")

// decompress calls part with each string in the JSON of a Helm release, without JSON's escapes. A string
// that is YAML has a part for each document. Decompress does not call part if the value is not compressed.
func (q Search) decompress(value []byte, part func([]byte)) error {
	compressed := bufio.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(value)))
	if magic, err := compressed.Peek(2); err != nil || string(magic) != "\x1f\x8b" {
		return nil
	}
	unzipped, err := gzip.NewReader(compressed)
	if err != nil {
		return errDamaged
	}
	limit := maxRelease
	if q.Releases != nil {
		limit = min(limit, *q.Releases)
	}
	limited := &io.LimitedReader{R: unzipped, N: int64(limit) + 1}
	p := partReader{from: bufio.NewReader(limited), part: part}
	err = p.read()
	if q.Releases != nil {
		*q.Releases -= limit - max(int(limited.N)-1, 0)
	}
	switch {
	case limited.N > 0 && err != nil:
		return errDamaged
	case limited.N > 0:
		return nil
	case limit < maxRelease:
		return errors.New("the namespace has too many Helm releases, and the end of this one was not searched")
	}
	return fmt.Errorf("the Helm release is longer than %d MiB, and its end was not searched", maxRelease>>20)
}

// partReader splits JSON into parts. Text that is not JSON has parts too.
type partReader struct {
	from *bufio.Reader
	part func([]byte)
	buf  []byte
	line int // where the last line begins in buf
}

func (p *partReader) read() error {
	quoted := false
	for {
		c, err := p.from.ReadByte()
		if err != nil {
			p.flush(len(p.buf))
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		switch {
		case c == '"':
			p.flush(len(p.buf))
			quoted = !quoted
		case quoted && c == '\\':
			p.escape()
		default:
			p.add(c)
		}
	}
}

// escape adds the character of an escape in a string. The reader returns an error again.
func (p *partReader) escape() {
	c, err := p.from.ReadByte()
	if err != nil {
		return
	}
	switch c {
	case 'n':
		p.add('\n')
	case 't':
		p.add('\t')
	case 'r':
		p.add('\r')
	case 'b', 'f':
		p.add(' ')
	case 'u':
		r := p.unit()
		if next, err := p.from.Peek(2); utf16.IsSurrogate(r) && err == nil && string(next) == `\u` {
			_, _ = p.from.Discard(2)
			r = utf16.DecodeRune(r, p.unit())
		}
		for _, b := range utf8.AppendRune(nil, r) {
			p.add(b)
		}
	default:
		p.add(c)
	}
}

// unit reads four hexadecimal digits.
func (p *partReader) unit() rune {
	digits, err := p.from.Peek(4)
	if err != nil {
		return utf8.RuneError
	}
	code, err := strconv.ParseUint(string(digits), 16, 16)
	if err != nil {
		return utf8.RuneError
	}
	_, _ = p.from.Discard(4)
	return rune(code)
}

func (p *partReader) add(c byte) {
	p.buf = append(p.buf, c)
	if c == '\n' {
		if bytes.HasPrefix(p.buf[p.line:], []byte("---")) {
			p.flush(p.line)
		}
		p.line = len(p.buf)
	}
	if len(p.buf) == maxPart {
		p.part(p.buf)
		p.buf = p.buf[:copy(p.buf, p.buf[max(p.line, maxPart-overlap):])]
		p.line = 0
	}
}

// flush ends a part after n bytes.
func (p *partReader) flush(n int) {
	if n > len(tag) {
		p.part(p.buf[:n])
	}
	p.buf = p.buf[:copy(p.buf, p.buf[n:])]
	p.line = 0
}
