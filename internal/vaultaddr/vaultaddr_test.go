package vaultaddr

import (
	"slices"
	"strings"
	"testing"
)

func TestAddress(t *testing.T) {
	for address, want := range map[string]string{
		"https://vault.example:8200":         "https://vault.example:8200",
		" https://Vault.Example:8200/ ":      "https://vault.example:8200",
		"HTTPS://vault.example/Tools/Vault/": "https://vault.example/Tools/Vault",
		"http://127.0.0.1:8200":              "http://127.0.0.1:8200",
		"http://[::1]:8200":                  "http://[::1]:8200",
		"http://[0:0::0001]:8200/":           "http://[::1]:8200",
		"https://[FD00::A]":                  "https://[fd00::a]",
		"https://[fe80::1%25eth0]:8200":      "https://[fe80::1%25eth0]:8200",
	} {
		if got := Normalize(address); got != want {
			t.Errorf("Normalize(%q) = %q, want %q", address, got, want)
		}
		if err := Check(Normalize(address)); err != nil {
			t.Error(err)
		}
	}
	for address, bracket := range map[string]bool{
		"": false, "vault:8200": false, "https://a,https://b": false,
		"unix:///run/vault": false, "https://": false, "https://:8200": false,
		"fd00::1": false, "http://::1:8200": true, "http://fd00::1": true,
	} {
		if err := Check(address); err == nil || strings.Contains(err.Error(), "in brackets") != bracket {
			t.Errorf("%q: %v", address, err)
		}
		if got := Normalize(address); got != strings.TrimRight(address, "/") {
			t.Errorf("Normalize(%q) = %q for an invalid address", address, got)
		}
	}
}

func TestList(t *testing.T) {
	for list, want := range map[string][]string{
		"": nil, " ": nil, "https://a": {"https://a"}, "https://A/, https://b:1 ": {"https://A/", "https://b:1"},
		"https://a,": {"https://a", ""},
	} {
		if got := Split(list); !slices.Equal(got, want) {
			t.Errorf("Split(%q) = %q, want %q", list, got, want)
		}
	}
	if got := NormalizeList(" https://A/, https://b:1/ "); got != "https://a,https://b:1" {
		t.Errorf("normalized: %q", got)
	}
}
