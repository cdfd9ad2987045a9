package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// legal matches the files of a module's root with its license. All of these
// licenses require that the program includes their text or notice.
var legal = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`)

func legalTexts(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var texts []file
	for _, e := range entries {
		if !e.Type().IsRegular() || !legal.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, file{name: e.Name(), data: data})
	}
	return texts, nil
}

// licenses are recognized by a sentence that only they have.
var licenses = []struct{ id, sentence string }{
	{"Apache-2.0", "apache license version 2.0"},
	{"MPL-2.0", "mozilla public license version 2.0"},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose"},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from this software"},
	{"BSD-2-Clause", "redistribution and use in source and binary forms, with or without modification, are permitted"},
}

var space = regexp.MustCompile(`[\s"'*#/>-]+`)

// licenseOf returns the license of the texts as an SPDX expression. An unknown
// license is an error: a person must read it first.
func licenseOf(texts []file) (string, error) {
	var found []string
	for _, text := range texts {
		if name := strings.ToLower(text.name); strings.HasPrefix(name, "notice") || strings.HasPrefix(name, "patents") {
			continue
		}
		words := space.ReplaceAllString(strings.ToLower(string(text.data)), " ")
		words = strings.ReplaceAll(words, "apache license, version", "apache license version")
		words = strings.ReplaceAll(words, "mozilla public license, version", "mozilla public license version")
		known := false
		for _, l := range licenses {
			if !strings.Contains(words, space.ReplaceAllString(l.sentence, " ")) {
				continue
			}
			// The two-clause text is a part of the three-clause one.
			if l.id == "BSD-2-Clause" && slices.Contains(found, "BSD-3-Clause") {
				known = true
				continue
			}
			if known = true; !slices.Contains(found, l.id) {
				found = append(found, l.id)
			}
		}
		if !known {
			return "", fmt.Errorf("%s: unknown license: read it, and add it to license.go", text.name)
		}
	}
	if len(found) == 0 {
		return "", errors.New("no license file")
	}
	slices.Sort(found)
	return strings.Join(found, " AND "), nil
}

// notices returns the legal texts of all linked modules.
func (l *linked) notices() []byte {
	var b bytes.Buffer
	b.WriteString("What this program is made of, and the terms of each part.\n")
	for _, m := range l.modules {
		for _, text := range m.texts {
			fmt.Fprintf(&b, "\n%s\n%s, %s (%s)\n\n%s\n", strings.Repeat("=", 80), m.key(), text.name, m.license,
				bytes.TrimRight(text.data, "\n"))
		}
	}
	return b.Bytes()
}
