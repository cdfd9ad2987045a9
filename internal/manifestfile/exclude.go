package manifestfile

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/secretmanager-io/secretmanager/internal/display"
)

// Pattern matches paths as a line of a .gitignore file in the working directory does. A pattern with a slash that is
// not its last character matches paths from the working directory, any other one matches a name at any level. * and ?
// do not match a slash, and ** matches any number of directories. A slash at the end matches only directories. A
// pattern that matches a directory excludes everything below it.
type Pattern struct {
	text    string
	path    *regexp.Regexp
	dirOnly bool
	matched bool
}

// ParsePattern parses a pattern.
func ParsePattern(text string) (*Pattern, error) {
	glob := filepath.ToSlash(strings.TrimPrefix(text, "./"))
	p := &Pattern{text: text, dirOnly: strings.HasSuffix(glob, "/")}
	glob = strings.TrimSuffix(glob, "/")
	switch {
	case strings.Trim(glob, "/") == "":
		return nil, display.Errorf("invalid pattern %q: it is empty", text)
	case strings.HasPrefix(glob, "!"):
		return nil, display.Errorf(`invalid pattern %q: a pattern cannot include files again: write \! for a name that `+
			"begins with !", text)
	}
	expression := "(?:.*/)?"
	if strings.Contains(glob, "/") {
		expression, glob = "", strings.TrimPrefix(glob, "/")
	}
	for glob != "" {
		var part string
		part, glob = nextPart(glob)
		expression += part
	}
	path, err := regexp.Compile("^" + expression + "$")
	if err != nil {
		return nil, display.Errorf("invalid pattern %q: check its brackets", text)
	}
	p.path = path
	return p, nil
}

// nextPart returns the regular expression of the first part of a glob, and the rest.
func nextPart(glob string) (expression, rest string) {
	switch {
	case strings.HasPrefix(glob, "**/"):
		return "(?:.*/)?", glob[3:]
	case glob == "**":
		return ".*", ""
	case glob[0] == '*':
		return "[^/]*", strings.TrimLeft(glob, "*")
	case glob[0] == '?':
		return "[^/]", glob[1:]
	case glob[0] == '\\' && len(glob) > 1:
		return regexp.QuoteMeta(glob[1:2]), glob[2:]
	case glob[0] == '[':
		// A bracket directly after the first one is a character.
		if end := strings.IndexByte(glob[min(2, len(glob)):], ']'); end >= 0 {
			set := glob[1 : end+2]
			if set[0] == '!' {
				set = "^" + set[1:]
			}
			return "[" + strings.ReplaceAll(set, `\`, `\\`) + "]", glob[end+3:]
		}
	}
	return regexp.QuoteMeta(glob[:1]), glob[1:]
}

// excludes reports whether a pattern matches a file or a directory, or one that contains it.
func (o *Options) excludes(path string, isDir bool) bool {
	if len(o.Exclude) == 0 {
		return false
	}
	if wd, err := os.Getwd(); err == nil && filepath.IsAbs(path) {
		if relative, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(relative) {
			path = relative
		}
	}
	path = strings.TrimPrefix(filepath.ToSlash(filepath.Clean(path)), "/")
	excluded := false
	for end := 0; end < len(path); end++ {
		next := strings.IndexByte(path[end:], '/')
		if next < 0 {
			end = len(path)
		} else {
			end += next
		}
		for _, p := range o.Exclude {
			if p.path.MatchString(path[:end]) && (!p.dirOnly || isDir || end < len(path)) {
				p.matched, excluded = true, true
			}
		}
	}
	return excluded
}

// Unmatched returns the patterns that matched no path.
func Unmatched(patterns []*Pattern) (texts []string) {
	for _, p := range patterns {
		if !p.matched {
			texts = append(texts, p.text)
		}
	}
	return texts
}
