// Package firstday walks through the first day of a new user, and a night on call: what they type, and what they see on
// an 80 or 120 columns wide terminal, also after mistakes and while servers do not respond. Each script in
// testdata/scripts is one scenario. Its first line says what the user expects.
//
// The commands of scripts are in package cliscript. $NS and $KEY have the same length in each run, so what a terminal
// shows can be compared as a whole:
//
//	terminal -cols 80 shown secretmanager status -n $NS
//	cmpenv shown.screen want
//
// Scripts that stop or freeze Vault start one of their own (own-vault).
package firstday

import (
	"testing"

	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestScenarios(t *testing.T) { cliscript.New(t).Run(t, "testdata/scripts", nil) }
