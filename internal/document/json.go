package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

var errHalfPair = errors.New("the plaintext is JSON with an escape that is not a character")

// object is a JSON object. The names that it has more than once are in twice.
type object struct {
	values map[string]any
	twice  []string
}

// parseJSON parses valid JSON within the limits. Its values are [*object], []any, string, json.Number, bool and nil.
func parseJSON(plaintext []byte) (any, error) {
	if HasHalfPair(plaintext) {
		return nil, errHalfPair
	}
	decoder := json.NewDecoder(bytes.NewReader(plaintext))
	decoder.UseNumber() // keeps numbers as written
	return nextValue(decoder)
}

func nextValue(decoder *json.Decoder) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, errNotDocument
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for decoder.More() {
			v, err := nextValue(decoder)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = decoder.Token()
		return list, err
	case json.Delim('{'):
		o := &object{values: map[string]any{}}
		for decoder.More() {
			token, err := decoder.Token()
			name, ok := token.(string)
			if err != nil || !ok {
				return nil, errNotDocument
			}
			v, err := nextValue(decoder)
			if err != nil {
				return nil, err
			}
			if _, known := o.values[name]; known && !slices.Contains(o.twice, name) {
				o.twice = append(o.twice, name)
			}
			o.values[name] = v
		}
		_, err = decoder.Token()
		return o, err
	}
	return token, nil
}

// plainJSON returns a value as encoding/json encodes it.
func plainJSON(v any, field []string) (any, error) {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			plain, err := plainJSON(item, field)
			if err != nil {
				return nil, err
			}
			list[i] = plain
		}
		return list, nil
	case *object:
		if len(v.twice) > 0 {
			return nil, fmt.Errorf("field %s contains a name twice", fieldName(field))
		}
		object := make(map[string]any, len(v.values))
		for name, value := range v.values {
			plain, err := plainJSON(value, field)
			if err != nil {
				return nil, err
			}
			object[name] = plain
		}
		return object, nil
	}
	return v, nil
}

// HasHalfPair reports whether JSON has a string with one half of a surrogate pair such as \ud83d\ude00, which is not a
// character and which a decoder would replace.
func HasHalfPair(raw []byte) bool {
	unit := func(i int) rune { // the code unit of the escape at i, or 0
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0
		}
		n, _ := strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
		return rune(n)
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		first := unit(i)
		switch {
		case !utf16.IsSurrogate(first):
			i++ // skip the escaped character
		case utf16.DecodeRune(first, unit(i+6)) == utf8.RuneError:
			return true
		default:
			i += 11
		}
	}
	return false
}
