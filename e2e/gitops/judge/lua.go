package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gopherjson "layeh.com/gopher-json"
)

// Argo CD gives a script one second.
const limit = time.Second

// What os.time and os.date say, so that a test knows what an action writes.
const now = 1_790_000_000

type action struct {
	Disabled bool `json:"disabled"`
}

// Argo CD's health states. Any other word from a script reads as Unknown there.
var states = map[string]bool{
	"Healthy": true, "Progressing": true, "Degraded": true, "Suspended": true, "Missing": true, "Unknown": true,
}

func health(object *unstructured.Unstructured, script string) (answer, error) {
	table, err := run(object, script)
	if err != nil {
		return answer{}, err
	}
	var said struct{ Status, Message string }
	if err := convert(table, &said); err != nil {
		return answer{}, err
	}
	if !states[said.Status] {
		return answer{}, fmt.Errorf("the script gives the health %q, which Argo CD does not know", said.Status)
	}
	return answer{Status: said.Status, Message: said.Message}, nil
}

func discovery(object *unstructured.Unstructured, script string) (answer, error) {
	table, err := run(object, script)
	if err != nil {
		return answer{}, err
	}
	found := map[string]action{}
	if err := convert(table, &found); err != nil {
		return answer{}, err
	}
	return answer{Actions: found}, nil
}

func act(object *unstructured.Unstructured, script string) (answer, error) {
	table, err := run(object, script)
	if err != nil {
		return answer{}, err
	}
	changed := map[string]any{}
	if err := convert(table, &changed); err != nil {
		return answer{}, err
	}
	return answer{Object: &unstructured.Unstructured{Object: changed}}, nil
}

// run runs a script as Argo CD runs one of a ConfigMap: the object as the global obj, the libraries base, table,
// package and a part of os, nothing else, and not for long.
func run(object *unstructured.Unstructured, script string) (*lua.LTable, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		if err := state.PCall(1, 0, nil); err != nil {
			return nil, fmt.Errorf("opening Lua's library %s: %w", name, err)
		}
	}
	// Not as a global: Argo CD has it only for those who ask.
	state.PreloadModule("os", clock)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	state.SetContext(ctx)

	state.SetGlobal("obj", gopherjson.DecodeValue(state, normal(object.Object)))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, errors.New("the script returns no table")
	}
	return table, nil
}

// clock loads os with a time that stands still. The date has one form only: that of RFC 3339.
func clock(state *lua.LState) int {
	os := state.NewTable()
	os.RawSetString("time", state.NewFunction(func(state *lua.LState) int {
		state.Push(lua.LNumber(now))
		return 1
	}))
	os.RawSetString("date", state.NewFunction(func(state *lua.LState) int {
		if format := state.CheckString(1); format != "!%Y-%m-%dT%XZ" {
			state.RaiseError("this clock does not know the format %q", format)
		}
		state.Push(lua.LString(time.Unix(now, 0).UTC().Format(time.RFC3339)))
		return 1
	}))
	state.Push(os)
	return 1
}

// normal gives integers as the floating-point numbers that Lua has.
func normal(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, each := range value {
			value[key] = normal(each)
		}
	case []any:
		for i, each := range value {
			value[i] = normal(each)
		}
	case int64:
		return float64(value)
	}
	return value
}

func convert(table *lua.LTable, into any) error {
	text, err := gopherjson.Encode(table)
	if err != nil {
		return err
	}
	// Lua cannot tell an empty object from an empty array.
	if string(text) == "[]" {
		text = []byte("{}")
	}
	return json.Unmarshal(text, into)
}
