// A relay of net/http that hands the request's context on to its request upstream.
//
// That is all that Go asks for: the server cancels the context when its client leaves,
// and the client closes the connection of a request whose context is cancelled.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

type chatRequest struct {
	Prompt string `json:"prompt"`
	Model  string `json:"model"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type upstreamRequest struct {
	Model    string    `json:"model"`
	Messages []message `json:"messages"`
	Stream   bool      `json:"stream"`
}

type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
}

type event struct {
	Type    string `json:"type"`
	Content string `json:"content"`
}

var upstream = os.Getenv("UPSTREAM_URL") + "/chat/completions"

func chat(w http.ResponseWriter, r *http.Request) {
	var asked chatRequest
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body, _ := json.Marshal(upstreamRequest{
		Model:    asked.Model,
		Messages: []message{{Role: "user", Content: asked.Prompt}},
		Stream:   true,
	})
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, upstream, bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	controller := http.NewResponseController(w)
	write := func(what event) bool {
		data, _ := json.Marshal(what)
		if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
			return false
		}
		return controller.Flush() == nil
	}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, found := strings.CutPrefix(lines.Text(), "data: ")
		if !found || data == "[DONE]" {
			continue
		}
		var part chunk
		if json.Unmarshal([]byte(data), &part) != nil {
			continue
		}
		for _, choice := range part.Choices {
			if choice.Delta.Content != "" && !write(event{"content", choice.Delta.Content}) {
				return
			}
		}
	}
	if lines.Err() == nil {
		write(event{Type: "done"})
	}
}

func main() {
	http.HandleFunc("/chat", chat)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
