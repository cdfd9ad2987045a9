package transit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A key is rotated every night. The target is the version of two nights ago, which every
// backup has that is not older.
func ExampleTargetVersion() {
	now := time.Date(2026, 1, 4, 3, 0, 1, 0, time.UTC)
	info := transit.KeyInfo{Latest: 4, Created: map[int]time.Time{}}
	for version := 1; version <= 4; version++ {
		info.Created[version] = time.Date(2026, 1, version, 3, 0, 0, 0, time.UTC)
	}
	fmt.Println(transit.TargetVersion(info, transit.DefaultSettle, now).Version)
	newKey := transit.KeyInfo{Latest: 1, Created: map[int]time.Time{1: now}}
	target := transit.TargetVersion(newKey, transit.DefaultSettle, now)
	fmt.Println(target.Version, "unsettled until", target.Unsettled.Format(time.DateTime))
	// Output:
	// 2
	// 1 unsettled until 2026-01-05 23:00:02
}

func ExampleRewrapVerified() {
	ctx, vault := context.Background(), exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	location := ciphertext.Strict.Context("demo", "matrix", "password")
	encrypted, err := session.Encrypt(ctx, exampleKey, []transit.Item{{Data: []byte("hunter2"), Context: location}})
	if err != nil {
		fmt.Println(err)
		return
	}
	info, err := session.Rotate(ctx, exampleKey)
	if err != nil {
		fmt.Println(err)
		return
	}
	results, err := transit.RewrapVerified(ctx, session, exampleKey, info.Latest,
		[]transit.Item{{Data: encrypted[0].Data, Context: location}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range results { // only results without an error may overwrite anything
		fmt.Printf("%.9s… %v\n", r.Data, r.Err)
	}
	// Output:
	// vault:v2:… <nil>
}

func ExampleDecryptable() {
	ctx, vault := context.Background(), exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	location := ciphertext.Strict.Context("demo", "matrix", "password")
	encrypted, err := session.Encrypt(ctx, exampleKey, []transit.Item{{Data: []byte("hunter2"), Context: location}})
	if err != nil {
		fmt.Println(err)
		return
	}
	elsewhere := ciphertext.Strict.Context("demo", "oracle", "password")
	fmt.Println(transit.Decryptable(ctx, session, exampleKey, []transit.Item{
		{Data: encrypted[0].Data, Context: location}, {Data: encrypted[0].Data, Context: elsewhere},
	}))
	// Output:
	// [<nil> cipher: message authentication failed] <nil>
}

func ExampleSession_ListKeys() {
	vault := exampleVault()
	defer vault.Close()
	fmt.Println(exampleSession(vault).ListKeys(context.Background(), "transit"))
	// Output:
	// [matrix] <nil>
}

// This Vault keeps its data in memory, so there is no backup that could lack a version.
func ExampleSession_Settle() {
	vault := exampleVault()
	defer vault.Close()
	session := exampleSession(vault)
	fmt.Println(session.Settle(context.Background(), 0), session.Settle(context.Background(), time.Hour))
	// Output:
	// 0s 1h0m0s
}

func ExampleClient_InMemory() {
	vault := exampleVault()
	defer vault.Close()
	client, err := transit.NewClient(transit.Config{Address: vault.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(client.InMemory(context.Background()))
	// Output:
	// true
}
